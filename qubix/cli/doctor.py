"""`qubix doctor`: is this machine fit to run Qubix, to share a GPU, to use the market? Each finding says what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from qubix.cli import checks, runfile
from qubix.cli.checks import Check, Verdict
from qubix.cli.output import ExitCode, JsonFlag, Output, table

_MARKS: Final = {Verdict.OK: Text("ok", "green"), Verdict.NOTE: Text("note", "yellow"), Verdict.FAIL: Text("fail", "red")}


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(doctor)


def doctor(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The platform's data folder.")] = None,
    provider: Annotated[bool, typer.Option("--provider", help="Only what a provider's machine needs.")] = False,
    consumer: Annotated[bool, typer.Option("--consumer", help="Only what using the market needs.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check this machine; exit 100 when something fails."""
    out = Output(as_json)
    folder = (data_dir or runfile.default_data_dir()).resolve()
    found = list(examine(folder, provider=provider, consumer=consumer))
    failed = [check for check in found if check.verdict is Verdict.FAIL]
    rows = [(_MARKS[check.verdict], check.name, check.detail, check.next_step) for check in found]
    out.show(table("Doctor", ("", "what", "found", "what to do"), rows))
    document = {"ok": not failed, "checks": [dataclasses.asdict(check) for check in found]}
    run = runfile.read(folder)
    first = "status" if run is not None and run.live else "up"
    then = (*(runfile.named(f"qubix {command}", folder) for command in (first, "provider join")), "qubix offers")
    out.finish(document, then=then, code=ExitCode.FAILED if failed else ExitCode.DONE)


def examine(folder: Path, *, provider: bool = False, consumer: bool = False) -> Iterator[Check]:
    """Run the checks: all of them, or those of one side."""
    everything = not provider and not consumer
    yield checks.python()
    if everything or provider:
        yield checks.ray()
        yield checks.sandbox()
        yield checks.gpus()
        yield checks.shared_memory()
        yield checks.disk(folder)
        yield checks.ports()
        yield checks.clock()
    if everything:
        yield checks.backup(folder)
        yield checks.postgres()
        yield checks.database(folder)
        yield checks.network(folder)
        yield checks.readiness(folder)
    if everything or consumer:
        yield checks.platform_answer()
