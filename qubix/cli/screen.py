"""Where a job's log and progress go: a terminal with a bar, lines (for a terminal, a file or a pipe), or nowhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from qubix.cli.output import Output, tame
from qubix.cli.telling import one_line, progress_of

_RESET = "\x1b[0m"


class Screen(Protocol):
    """Shows one job."""

    def write(self, text: str) -> None:
        """A piece of its log."""
        ...

    def say(self, sentence: str) -> None:
        """What became of it. Args: sentence, bare."""
        ...

    def show(self, job: Mapping[str, Any]) -> None:
        """Its state and progress."""
        ...


class Nowhere:
    """For --json: the document says it all."""

    def write(self, text: str) -> None:
        return

    def say(self, sentence: str) -> None:
        return

    def show(self, job: Mapping[str, Any]) -> None:
        return


class Lines:
    """The log alone on stdout, tamed if that is a terminal, byte for byte as the job wrote it if not; all else on stderr.

    Args: states, whether to say each change of the state and of the current operation.
    """

    def __init__(self, out: Output, *, states: bool = False) -> None:
        self._out = out
        self._states = states
        self._shown = ("", "")
        self._line_open = False

    def write(self, text: str) -> None:
        terminal = sys.stdout.isatty()
        sys.stdout.write(shown_on_terminal(text) if terminal else text)
        sys.stdout.flush()
        self._line_open = terminal and not text.endswith("\n")

    def say(self, sentence: str) -> None:
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False
        self._out.note(f"[dim]──[/dim] {escape(sentence)}")

    def show(self, job: Mapping[str, Any]) -> None:
        now = (job["state"], one_line(job.get("operation") or ""))
        if self._states and now != self._shown:
            self._shown = now
            self.say(f"{now[0]} {progress_of(job)} % {now[1]}".rstrip())


class Bar:
    """A terminal: the log runs above a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("PENDING", total=100)

    def write(self, text: str) -> None:
        # rich must know which bytes are colours, or it counts them as columns; a line keeps what its last carriage return left
        lines = [line.rsplit("\r", 1)[-1] for line in tame(text).replace("\r\n", "\n").rstrip("\n").split("\n")]
        self._bar.console.print(Text("\n").join(Text.from_ansi(line) for line in lines), highlight=False)

    def say(self, sentence: str) -> None:
        self._bar.console.print(f"[dim]──[/dim] {escape(sentence)}", highlight=False)

    def show(self, job: Mapping[str, Any]) -> None:
        operation = one_line(job.get("operation") or "")
        self._bar.update(self._task, completed=progress_of(job), description=f"{job['state']} {operation}".rstrip())


def shown_on_terminal(text: str) -> str:
    """Tamed, and no colour of it colours what comes after."""
    shown = tame(text)
    return shown + _RESET if "\x1b" in shown else shown


@contextlib.contextmanager
def screen_of(out: Output) -> Iterator[Screen]:
    """The screen that fits: none with --json, a bar on a terminal, else lines."""
    if out.as_json:
        yield Nowhere()
    elif not (out.terminal.is_terminal and sys.stdout.isatty()):
        yield Lines(out, states=True)
    else:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())
        with Progress(*columns, console=out.terminal) as bar:
            yield Bar(bar)
