"""`qubix`: the command line. Each noun adds its commands; errors leave through one door, with a stable exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import httpx
import typer
from typer.exceptions import TyperException

from qubix import __version__
from qubix.cli import account, backup, demo, devnet, doctor, escrow, jobs, migrate, offers, provider, run, signer, treasury, up, wallet
from qubix.cli import recover as _recover  # noqa: F401  (adds its command to the treasury's)
from qubix.cli.client import ApiError
from qubix.cli.output import ExitCode, JsonFlag, Output, WrongUsage, fail
from qubix.cli.supervise import NotStarted, leave_word
from qubix.kernel.errors import NotFound, QubixError

app = typer.Typer(
    name="qubix",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for noun in (up, doctor, backup, demo, devnet, signer, treasury, migrate, account, offers, run, jobs, wallet):
    noun.register(app)
app.add_typer(provider.app, name="provider")
app.add_typer(escrow.app, name="escrow")


@app.callback(invoke_without_command=True)
def everywhere(
    version: Annotated[bool, typer.Option("--version", help="Print the release, and nothing else.")] = False,
) -> None:
    """A GPU marketplace on Ray: offer a GPU, run a job on one, pay by what was metered."""
    if version:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


@app.command(rich_help_panel="This machine")
def version(as_json: JsonFlag = False) -> None:
    """Print the release."""
    out = Output(as_json)
    out.show(__version__)
    out.finish({"version": __version__})


def main() -> None:
    """Entry point of `qubix`."""
    as_json = "--json" in sys.argv
    try:
        if as_json:
            sys.exit(app(prog_name="qubix", standalone_mode=False))  # else a wrong command line is drawn on stderr, and stdout stays empty
        app(prog_name="qubix")
    except TyperException as error:
        fail(error.format_message(), next_step=_help_of(error), code=WrongUsage.code, as_json=as_json)
        sys.exit(error.exit_code)
    except typer.Abort:
        fail("given up", code="aborted", as_json=as_json)
        sys.exit(int(ExitCode.ERROR))
    except QubixError as error:
        code = error.problem if isinstance(error, ApiError | NotStarted) else error.code
        leave_word(error, code)
        fail(error.message, next_step=error.next_step, code=code, extra=error.extra, as_json=as_json)
        sys.exit(int(_code_of(error)))
    except httpx.TransportError as error:
        where = _asked(error)
        next_step = "is it running? qubix status shows it, qubix up starts it, qubix login --url … points elsewhere"
        fail(f"nothing answers{where}: {error or type(error).__name__}", next_step=next_step, code="unreachable", as_json=as_json)
        sys.exit(int(ExitCode.ERROR))


def _code_of(error: QubixError) -> ExitCode:
    match error:
        case ApiError():
            return error.exit_code
        case NotFound():
            return ExitCode.NOT_FOUND
        case WrongUsage():
            return ExitCode.USAGE
        case _:
            return ExitCode.ERROR


def _help_of(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else 'qubix'} --help shows what it takes"


def _asked(error: httpx.TransportError) -> str:
    try:
        return f" at {error.request.url.copy_with(path='/', query=None)}"
    except RuntimeError:
        return ""


if __name__ == "__main__":
    main()
