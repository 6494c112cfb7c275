"""What a command prints: rich tables for people, exactly one JSON document for programs, and an exit code that stays the same."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from qubix.kernel.errors import Invalid
from qubix.kernel.money import written
from qubix.kernel.sizes import gigabytes

JsonFlag = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class ExitCode(enum.IntEnum):
    """Stable over releases; scripts may rely on them."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    FAILED = 100
    NOT_FINISHED = 101
    NOT_FOUND = 102
    CANCELLED = 103


class WrongUsage(Invalid):
    """The command line itself is wrong: exit code 2."""

    code = "usage"


class OptionMissing(WrongUsage):
    """An option is needed, and nobody can be asked for it."""

    code = "option_missing"


class NotAgreed(WrongUsage):
    """What costs or ends something needs a yes, and nobody can be asked for it."""

    code = "not_agreed"


def callable_here(command: str) -> str:
    """A command of ours as it can be copied: where the shell does not find `qubix`, with the path by which it was called."""
    called = Path(sys.argv[0])
    if not command.startswith("qubix ") or called.name != "qubix" or shutil.which("qubix"):
        return command
    if called.is_relative_to(Path.cwd()):
        called = called.relative_to(Path.cwd())
    return shlex.quote(str(called)) + command.removeprefix("qubix")


PIPE_WIDTH: Final = 100
"""Columns of a rule where no terminal bounds it; tables and sentences are never wrapped there."""
_WHOLE_WIDTH: Final = 100_000
_COLOUR: Final = r"(?:0{0,2}|0?[1-4]|2[2-4]|[34][0-79]|9[0-7]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2;\d{1,3};\d{1,3};\d{1,3})"
_COLOURS: Final = re.compile(rf"\x1b\[{_COLOUR}(?:;{_COLOUR}){{0,16}}m")
_SEQUENCES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, and what moves the cursor or erases
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC and their like: title, clipboard, links
    r"|\x1b[ -/]+[0-~]|\x1b[0-Z\\^-~]"  # charsets, reset, …
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # single controls, and beginnings without an end
)
_JOB_CODES: Final[Mapping[str, ExitCode]] = {
    "COMPLETED": ExitCode.DONE,
    "FAILED": ExitCode.FAILED,
    "CANCELLED": ExitCode.CANCELLED,
}


def job_code(state: str) -> ExitCode:
    """The exit code for a job's state; anything that is not final is NOT_FINISHED."""
    return _JOB_CODES.get(state, ExitCode.NOT_FINISHED)


class Output:
    """One command's voice.

    Args: as_json, print one JSON document on stdout and nothing else; terminal, stdout for people (tests pass their own).
    """

    def __init__(self, as_json: bool, terminal: Console | None = None) -> None:
        self.as_json = as_json
        self.terminal = terminal or Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self.aside = Console(stderr=True, highlight=False)

    def show(self, *what: RenderableType) -> None:
        """Print for people; silent with --json."""
        if not self.as_json:
            for item in what:
                if isinstance(item, Table) and not self.terminal.is_terminal:
                    self.terminal.print(Text(whole(item)), soft_wrap=True)
                else:
                    self.terminal.print(item, soft_wrap=isinstance(item, str | Text) and not self.terminal.is_terminal)

    def note(self, text: str) -> None:
        """Say on stderr what is going on; silent with --json."""
        if not self.as_json:
            self.aside.print(text, soft_wrap=True)

    def finish(self, document: Any, *, then: Sequence[str] = (), code: ExitCode = ExitCode.DONE) -> None:
        """End the command: the document with --json, else the next useful commands on stderr.

        Raises: typer.Exit with `code`, unless it is DONE.
        """
        if self.as_json:
            sys.stdout.write(json.dumps(document, default=str) + "\n")
            sys.stdout.flush()
        elif then:
            self.aside.print(f"[dim]next:  {plain('   '.join(map(callable_here, then)))}[/dim]", soft_wrap=True)
        if code is not ExitCode.DONE:
            raise typer.Exit(int(code))

    def confirm(self, question: str, yes: bool) -> None:
        """Ask once; with -y it is agreed already.

        Raises: typer.Exit(ERROR) for a no; NotAgreed where nobody can be asked: without a terminal, and with --json.
        """
        if yes:
            return
        if self.as_json or not sys.stdin.isatty():
            raise NotAgreed(f"nobody is asked here: {question}", next_step="pass -y to agree")
        if not typer.confirm(question, default=True, err=True):
            raise typer.Exit(int(ExitCode.ERROR))


def ask(out: Output, yes: bool = False, /, **questions: tuple[str | None, str]) -> list[str]:
    """The values of options that a command cannot do without: those given, the rest asked for at a terminal.

    Args: questions, by option: what was given (None: nothing) and the question. A password is not echoed.
    Raises: OptionMissing, naming every option that lacks, where nobody can be asked, or with -y or --json.
    """
    lacking = [name for name, (given, _) in questions.items() if given is None]
    if lacking and (yes or out.as_json or not sys.stdin.isatty()):
        options = " and ".join("--" + name.replace("_", "-") for name in lacking)
        raise OptionMissing(f"{options} must be given: nobody is asked here", next_step=f"repeat the command with {options}")
    return [
        given if given is not None else typer.prompt(question, err=True, hide_input=name == "password")
        for name, (given, question) in questions.items()
    ]


def fail(message: str, *, next_step: str = "", code: str = "error", extra: Mapping[str, Any] | None = None, as_json: bool = False) -> None:
    """Print an error: the problem as one JSON document, or two lines on stderr."""
    if as_json:
        problem = {"code": code, "detail": message, "next_step": next_step, **(extra or {})}
        sys.stdout.write(json.dumps({"error": problem}, default=str) + "\n")
        return
    terminal = Console(stderr=True, highlight=False)
    terminal.print(f"[bold red]error:[/bold red] {plain(message)}", soft_wrap=True)
    if next_step:
        terminal.print(f"[dim]what to do:[/dim] {plain(next_step)}", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> Table:
    """A table whose cells are text, never markup: names come from strangers. The columns named in `right` are figures.

    A nameless second column needs no heading at all.
    """
    flush_right = set(right)
    made = Table(
        title=Text(bare(title)), title_justify="left", header_style="bold", box=None, pad_edge=False, show_header="" not in columns[1:]
    )
    for column in columns:
        made.add_column(column, justify="right" if column in flush_right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(bare(_cell(cell))) for cell in row))
    return made


def whole(made: Table) -> str:
    """A table for a file or a pipe: one line per row however long, without colours and without blanks at the ends of lines."""
    body, page = copy.copy(made), io.StringIO()
    body.title = None
    Console(file=page, width=_WHOLE_WIDTH, color_system=None, force_terminal=False).print(body)
    return "\n".join(line.rstrip() for line in [str(made.title or ""), *page.getvalue().splitlines()] if line.strip())


def tame(text: str) -> str:
    """A job's log for a terminal: its plain colours stay; what moves the cursor, hides text, or sets title or clipboard is gone."""
    return _SEQUENCES.sub(_tamed, text)


def bare(text: str) -> str:
    """A stranger's word in a text of ours, for a terminal: not even its colours stay."""
    return _SEQUENCES.sub(_bared, text)


def _tamed(found: re.Match[str]) -> str:
    return found[0] if _COLOURS.fullmatch(found[0]) else _bared(found)


def _bared(found: re.Match[str]) -> str:
    return "" if len(found[0]) > 1 else "\ufffd"


def plain(text: str) -> str:
    """Text from elsewhere, for where rich reads markup."""
    return escape(bare(text))


def amount(value: int | None, asset: str = "QUBIC") -> str:
    """Whole units as every message writes them, `12 345 QU`, or a dash; of another asset, with its own name."""
    return "-" if value is None else written(value) if asset == "QUBIC" else written(value).replace("QU", asset)


def memory(size: int | None) -> str:
    """Bytes of memory in GB, where known; see qubix.kernel.sizes."""
    return "-" if size is None else gigabytes(size)


def ago(moment: str | None) -> str:
    """An RFC 3339 time as an age: `12 s ago`."""
    if not moment:
        return "never"
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
