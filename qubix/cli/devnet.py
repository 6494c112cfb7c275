"""`qubix devnet`: a simulated Qubic network in the foreground, with test money."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from qubix.cli import runfile
from qubix.cli.output import JsonFlag, Output, plain


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(devnet)


def devnet(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where it keeps its state; default: devnet in Qubix's folder.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 21841,
    tick_s: Annotated[float, typer.Option(min=0, help="Seconds from tick to tick; 0: only when the admin steps.")] = 1.0,
    admin_token_file: Annotated[Path | None, typer.Option(help="Mode 0600; made in the data folder if none is named.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a simulated Qubic network until Ctrl-C: the public RPC's paths and silences, test money, faults on request."""
    from qubix.chains.qubic.devnet.running import Options, Running, run  # heavy: only where a network is run

    out = Output(as_json)

    def started(running: Running) -> None:
        out.show(f"a Qubic network with test money at [bold]{running.url}[/bold], tick {running.tick}")
        out.show(f"faucet {running.faucet}, its seed is public: {running.faucet_seed}")
        out.show(f"the admin's token is in {plain(running.admin_token_file)}, the calls are in docs/devnet.md")
        out.finish(dataclasses.asdict(running), then=(f"curl {running.url}/live/v1/tick-info",))

    folder = (data_dir or runfile.default_data_dir() / "devnet").resolve()
    run(Options(folder, port=port, tick_s=tick_s, admin_token_file=admin_token_file), started)
