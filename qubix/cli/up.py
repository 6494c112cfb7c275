"""`qubix up`, `qubix down`, `qubix status`: the platform on this machine."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from qubix.cli import runfile
from qubix.cli.account import default_url
from qubix.cli.backup import refuse_half_restored
from qubix.cli.output import ExitCode, JsonFlag, Output, YesFlag, table
from qubix.cli.processes import Running, end, seen
from qubix.cli.supervise import start_and_wait
from qubix.kernel.errors import QubixError, Unavailable

STOP_TIMEOUT_S: Final = 60.0
PORT_DEFAULT: Final = 8080
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Where everything that lasts is kept.")]
_PANEL: Final = "This machine"


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel=_PANEL)(up)
    app.command(rich_help_panel=_PANEL)(down)
    app.command(rich_help_panel=_PANEL)(status)


def up(
    data_dir: DataDirOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the web layer; default 8080, or a free one; 0: a free one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address that the web layer listens on.")] = "127.0.0.1",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready; qubix down stops it.")] = False,
    setting: Annotated[list[str] | None, typer.Option("--set", help="A setting, as dispute_window_s=60; see docs/settings.md.")] = None,
    owner_pid: Annotated[int | None, typer.Option(hidden=True)] = None,
    leave_key: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start Qubix and supervise it until Ctrl-C: PostgreSQL, Ray with Serve, controller, fabric daemon, web layer, and its Qubic network.

    That is a simulated one with test money (devnet) unless --set network=none, or mainnet, is given at the first start.
    """
    out = Output(as_json)
    folder = (data_dir or runfile.default_data_dir()).resolve()
    settings = dict(_setting(text) for text in setting or [])
    if settings:
        from qubix.cli.chosen import chosen_settings  # the settings tree: heavy, and only read here

        chosen_settings(settings)
    chosen = port if port is not None else _port_default(host)
    if detach:
        run, key = start_detached(folder, host=host, port=chosen, settings=settings)
        _show(out, folder, run, key)
        out.finish(_document(folder, run, key), then=_next_after_up(folder, run))
        return
    _serve(out, folder, host, chosen, settings, seen(owner_pid) if owner_pid else None, leave_key)


def down(data_dir: DataDirOption = None, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Stop Qubix; what is in the data folder stays."""
    del yes  # taken everywhere; nothing is lost, so nothing is asked
    out = Output(as_json)
    folder = (data_dir or runfile.default_data_dir()).resolve()
    node = runfile.is_node(runfile.read(folder))
    stopped = stop(folder)
    if node:
        out.show("this machine's node is stopped; it stays in the market, offline" if stopped else "this machine's node did not run")
        then = (runfile.at_home("qubix provider join", folder), "qubix provider status", runfile.at_home("qubix provider leave", folder))
        out.finish({"stopped": stopped, "data_dir": str(folder)}, then=then)
        return
    out.show("stopped; its data stays" if stopped else f"nothing was running on {folder}; another folder: --data-dir DIR")
    out.finish({"stopped": stopped, "data_dir": str(folder)}, then=(runfile.named("qubix up", folder),))


def status(data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Show what runs: URLs, processes, health. Exit 0 when ready, 101 while starting, 100 when not running."""
    out = Output(as_json)
    folder = (data_dir or runfile.default_data_dir()).resolve()
    run = runfile.read(folder)
    if run is None or not run.live:
        out.show(f"not running on {folder}; another folder: --data-dir DIR")
        then = (runfile.named("qubix up", folder), runfile.named("qubix doctor", folder))
        out.finish({"running": False, "data_dir": str(folder)}, then=then, code=ExitCode.FAILED)
        return
    if runfile.is_node(run):
        out.show(f"{folder} is the home of this machine's node, which is {run.state}; it is no platform")
        document = {**_document(folder, run, None), "running": True, "ready": run.state == "ready"}
        then = ("qubix provider status", runfile.at_home("qubix provider leave", folder))
        out.finish(document, then=then, code=ExitCode.DONE if run.state == "ready" else ExitCode.NOT_FINISHED)
        return
    health = _health(run.urls.get("application", ""))
    ready = run.state == "ready" and bool(health.get("ready"))
    groups: dict[str, list[bool]] = {}
    for name, process in run.processes.items():
        groups.setdefault(name.partition("/")[0], []).append(seen(process.pid) == process)
    rows = [
        (name, len(running), "runs" if all(running) else "ended" if not any(running) else "in part")
        for name, running in sorted(groups.items())
    ]
    _show(out, folder, run, None)
    out.show(table("Processes", ("part", "processes", "state"), rows, right=("processes",)))
    document = {**_document(folder, run, None), "running": True, "ready": ready, "health": health}
    then = (runfile.named("qubix doctor", folder), runfile.named("qubix down", folder))
    out.finish(document, then=then, code=ExitCode.DONE if ready else ExitCode.NOT_FINISHED)


def start_detached(
    folder: Path, *, host: str = "127.0.0.1", port: int = 0, settings: dict[str, str] | None = None, owner: int | None = None
) -> tuple[runfile.RunFile, str | None]:
    """Start a supervisor of its own and wait until it is ready.

    Args: folder, the data folder; owner, a pid whose end also ends the stack.
    Returns: its run file, and the first operator's key where it was made now. Raises: Unavailable with the reason.
    """
    line = [sys.executable, "-m", "qubix.cli.main", "up", "--data-dir", str(folder), "--host", host, "--port", str(port)]
    line += ["--leave-key"]
    for name, value in (settings or {}).items():
        line += ["--set", f"{name}={value}"]
    if owner is not None:
        line += ["--owner-pid", str(owner)]
    return start_and_wait(line, folder, "Qubix"), _take(folder / runfile.OPERATOR_KEY)


def stop(folder: Path) -> bool:
    """Stop the stack over a data folder and wait for it. Returns: whether one ran. Raises: Unavailable if it does not stop."""
    run = runfile.read(folder)
    if run is None or run.supervisor is None:
        return False
    if not run.live:
        with runfile.locked(folder):
            runfile.clear_remains(folder)
        return False
    killed = end([run.supervisor], grace_s=STOP_TIMEOUT_S)
    if killed:
        with runfile.locked(folder):
            runfile.clear_remains(folder)
        raise Unavailable(
            "the supervisor did not stop in time and was killed; what it had started was ended",
            next_step=runfile.named("qubix status", folder),
        )
    return True


def _serve(out: Output, folder: Path, host: str, port: int, settings: dict[str, str], owner: Running | None, leave_key: bool) -> None:
    from qubix.cli.stack import Plan, Stack  # heavy: only where a stack is started
    from qubix.cli.supervise import signals_set

    with runfile.locked(folder):
        refuse_half_restored(folder)
        runfile.clear_remains(folder)
        stack = Stack(Plan(folder, host, port, settings, owner), say=lambda step: out.note(f"[dim]· {step}[/dim]"))
        with signals_set(stack.stopping):
            try:
                began = time.monotonic()
                stack.start()
                shown = None if leave_key else _take(folder / runfile.OPERATOR_KEY)
                stack.announce()
                if out.as_json:
                    out.finish(_document(folder, stack.run, shown))
                _show(out, folder, stack.run, shown)
                out.note(f"ready in {time.monotonic() - began:.0f} s; Ctrl-C stops everything")
                stack.watch()
            except QubixError:
                if not stack.stopping.is_set():
                    raise
            finally:
                out.note("stopping")
                stack.stop()


def _show(out: Output, folder: Path, run: runfile.RunFile, key: str | None) -> None:
    address = run.urls.get("application", "")
    rows = [
        ("application", address),
        ("API documentation", f"{address}/api/docs"),
        ("Ray dashboard", run.urls.get("ray_dashboard", "-")),
        *([("Qubic devnet", run.urls["qubic"])] if "qubic" in run.urls else []),
        ("data", str(folder)),
    ]
    out.show(table("Qubix", ("what", "where"), rows))
    if key:
        out.show(f"\nfirst operator's key, shown once: [bold]{key}[/bold]", f"use it with: qubix login --url {address} --key {key}\n")


def _next_after_up(folder: Path, run: runfile.RunFile) -> tuple[str, ...]:
    """The next commands, so that each works as it stands: they name this folder or address unless it is what they would take anyway."""
    address = run.urls["application"]
    signup = "qubix signup" if default_url() == address else f"qubix signup --url {address}"
    status, join, down = (runfile.named(f"qubix {command}", folder) for command in ("status", "provider join", "down"))
    return status, signup, join, down


def _document(folder: Path, run: runfile.RunFile, key: str | None) -> dict[str, Any]:
    document = {"data_dir": str(folder), **dataclasses.asdict(run)}
    return document | ({"operator_key": key} if key else {})


def _take(path: Path) -> str | None:
    if not path.exists():
        return None
    key = path.read_text().strip()
    path.unlink()
    return key


def _health(address: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{address}/health/ready", timeout=5)
        body: Any = answer.json()
        return {"ready": answer.status_code == 200, **(body if isinstance(body, dict) else {})}
    except (httpx.HTTPError, ValueError) as error:
        return {"ready": False, "error": str(error)}


def _setting(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is not name=value", param_hint="--set")
    return name.lower(), value


def _port_default(host: str) -> int:
    import socket

    with socket.socket() as probe:
        try:
            probe.bind((host, PORT_DEFAULT))
        except OSError:
            return 0
        return PORT_DEFAULT
