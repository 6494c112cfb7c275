"""`qubix signer`: the process that holds the chain's keys, in the foreground; and its key file, made once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from qubix.cli import runfile
from qubix.cli.output import JsonFlag, Output, plain

URL_VARIABLE: Final = "QUBIX_DATABASE_URL_FILE"
KEY_VARIABLE: Final = "QUBIX_SIGNER_KEY_FILE"


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(signer)


def signer(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The platform's data folder.")] = None,
    url_file: Annotated[
        Path | None, typer.Option(help=f"File of mode 0600 with the signer's database URL; default: {URL_VARIABLE}, or the data folder's.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help=f"File of mode 0600 with the sealing key; default: {KEY_VARIABLE}, or the data folder's.")
    ] = None,
    make_key: Annotated[bool, typer.Option("--make-key", help="Make the key file, and do nothing else.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Sign withdrawals until Ctrl-C: makes addresses, keeps their seeds encrypted, sends nothing itself. `qubix up` starts one already."""
    from qubix.postgres.engine import read_url_file  # heavy: only where it is needed
    from qubix.treasury.seeds import make_key_file, read_key_file

    out = Output(as_json)
    folder = (data_dir or runfile.default_data_dir()).resolve()
    key = key_file or Path(os.environ.get(KEY_VARIABLE) or folder / "secrets" / "signer.key")
    if make_key:
        make_key_file(key)
        out.show(
            f"the key is in {plain(str(key))}. Without it the money of every address is lost: keep a copy elsewhere, apart from the database's"
        )
        out.finish({"key_file": str(key)}, then=("qubix signer", "qubix treasury status", "qubix treasury limits"))
        return
    url = url_file or Path(os.environ.get(URL_VARIABLE) or folder / "secrets" / "qubix_signer.url")
    read_key_file(key)
    read_url_file(url)
    places = {"QUBIX_DATA_DIR": str(folder), URL_VARIABLE: str(url), KEY_VARIABLE: str(key)}
    out.finish(
        {"key_file": str(key), "url_file": str(url)}, then=("qubix treasury status", "qubix treasury limits", "qubix treasury addresses")
    )
    os.execve(sys.executable, [sys.executable, "-P", "-m", "qubix.signer"], {**os.environ, **places})  # noqa: S606  (no shell, our own module)
