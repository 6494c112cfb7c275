"""run.json in the data folder: what runs, where, and since when. Written by the supervisor, read by every other command."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qubix.cli.processes import Running, alive, end
from qubix.kernel.errors import Conflict
from qubix.kernel.places import default_data_dir as default_data_dir

DATABASE_GRACE_S: Final = 30.0
OPERATOR_KEY: Final = "operator.key"
"""In the data folder, from the moment it is made until a start has shown it."""


def named(command: str, data_dir: Path) -> str:
    """A command about a data folder, as it must be typed: with --data-dir wherever the folder is not the default one."""
    return command if data_dir == default_data_dir().resolve() else f"{command} --data-dir {shlex.quote(str(data_dir))}"


def default_home() -> Path:
    """The agent's folder of this user on this machine."""
    return default_data_dir() / "node"


def at_home(command: str, home: Path) -> str:
    """A command about a node's home, as it must be typed: with --home wherever that is not the default one."""
    return command if home == default_home().resolve() else f"{command} --home {shlex.quote(str(home))}"


@dataclasses.dataclass
class RunFile:
    """The content of run.json.

    Args: supervisor, None before it has a pid of its own; state, 'starting', 'ready', 'stopping' or 'failed';
        runtime_dir, the short private folder of sockets; urls and ports by name; processes by name; error, why it failed.
    """

    supervisor: Running | None = None
    state: str = "starting"
    runtime_dir: str = ""
    urls: dict[str, str] = dataclasses.field(default_factory=dict)
    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    processes: dict[str, Running] = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""

    @property
    def live(self) -> bool:
        """Whether its supervisor still runs."""
        return self.supervisor is not None and alive(self.supervisor)


def path_of(data_dir: Path) -> Path:
    """Where run.json of a data folder lies."""
    return data_dir / "run.json"


def read(data_dir: Path) -> RunFile | None:
    """The run file of a data folder, None where there is none or it is broken."""
    try:
        content: dict[str, Any] = json.loads(path_of(data_dir).read_text())
        supervisor = content.pop("supervisor")
        processes = {name: Running(**process) for name, process in content.pop("processes").items()}
        return RunFile(supervisor=Running(**supervisor) if supervisor else None, processes=processes, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(data_dir: Path, run: RunFile) -> None:
    """Replace run.json at once, mode 0600."""
    fresh = data_dir / "run.new"
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dataclasses.asdict(run), file, indent=1)
    fresh.replace(path_of(data_dir))


def is_node(run: RunFile | None) -> bool:
    """Whether what runs there is a provider's node, not a platform."""
    return run is not None and "worker_id" in run.facts


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Own the data folder for the duration. Raises: Conflict when another supervisor owns it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Qubix runs on {data_dir} already",
                next_step=f"{named('qubix status', data_dir)} shows it; {named('qubix down', data_dir)} stops it; "
                + ("--home names another" if is_node(read(data_dir)) else "--data-dir names another"),
            ) from None
        yield


def clear_remains(data_dir: Path) -> None:
    """After a crash: end what the last run left, and remove its runtime folder. Call under the lock."""
    run = read(data_dir)
    if run is None or run.live:
        return
    database = run.processes.pop("postgres", None)
    end(run.processes.values(), grace_s=3.0)
    if database is not None:
        end([database], grace_s=DATABASE_GRACE_S, first=signal.SIGINT)  # PostgreSQL's fast shutdown; SIGTERM would wait for its clients
    if run.runtime_dir.startswith("/tmp/qx-"):  # noqa: S108  (the prefix that only our own folders have)
        shutil.rmtree(run.runtime_dir, ignore_errors=True)
    path_of(data_dir).unlink(missing_ok=True)
