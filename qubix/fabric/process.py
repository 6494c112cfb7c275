"""One `ray start --block` as a supervised child: its environment, its whole process tree, its end.

Ray 2.60 leaves its DashboardAgent and RuntimeEnvAgent running for minutes after a SIGKILL of their raylet, with an emptied
command line: they can be found later only by pids recorded before. Hence every member of the tree is written down, with its
time of birth, so that a pid used again by somebody else is never killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from qubix.kernel.errors import Unavailable
from qubix.kernel.failpoints import FOLDER_VARIABLE

_INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "TZ",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    FOLDER_VARIABLE,
)
_RECORD_INTERVAL_S = 3.0


class RayStartFailed(Unavailable):
    """`ray start` ended, or did not come up in time."""

    code = "ray_start_failed"


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the tree: its pid means something only together with its time of birth."""

    pid: int
    born: float
    name: str = field(compare=False)


def ray_environment(token_path: Path, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a Ray process, made from nothing: every task of the cluster can read it, so it holds no secret.

    Args: token_path, the 0600 file with the cluster's token; extra, more variables (paths, never secrets).
    """
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        # Where jobs fill a machine, Ray would end its workers, the agent among them, and offer them to the kernel first (1000). A job has limits of
        # its own, and is the kernel's first choice (qubix.agent.fork_server).
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_oom_score_adjustment": "0",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def temporary_folder(folder: Path) -> Path:
    """Where the Ray processes of `folder` put what they would leave in the system's temp folder when they are killed."""
    inner = folder / "t"
    inner.mkdir(mode=0o700, exist_ok=True)
    return inner


def write_token(path: Path, token: str) -> None:
    """Store the cluster's token in a file that only its owner reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token)
    path.chmod(0o600)


def ray_command(*arguments: str) -> list[str]:
    """`ray start` of this interpreter's installation, never the one that PATH or the present folder (`-P`) finds first."""
    return [sys.executable, "-P", "-m", "qubix.fabric.ray_start", "start", *arguments]


def members_of(pid: int) -> list[Member]:
    """The living process `pid` and all that descends from it."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    found = []
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(Member(one.pid, one.create_time(), one.name()))
    return found


def living(members: Iterable[Member]) -> list[Member]:
    """Those of `members` that still run (a zombie does not, a later process under the same pid is another)."""
    alive = []
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(member.pid)
            if process.create_time() == member.born and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(member)
    return alive


def reap(record: Path, *, grace_s: float = 0.0) -> int:
    """Kill whatever of a recorded process tree still runs, and drop the record.

    Args: record, the file that a RayProcess keeps; grace_s, seconds between SIGTERM and SIGKILL.
    Returns: how many processes were still alive. No record: 0.
    """
    try:
        members = [Member(*row) for row in json.loads(record.read_text())]
    except (FileNotFoundError, ValueError, TypeError):
        return 0
    count = _kill(members, grace_s)
    record.unlink(missing_ok=True)
    return count


def _kill(members: Sequence[Member], grace_s: float) -> int:
    left = living(members)
    count = len(left)
    if grace_s > 0:
        _signal(left, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = living(left)
    for _ in range(100):
        if not left:
            break
        _signal(left, signal.SIGKILL)
        time.sleep(0.02)
        left = living(left)
    return count


def _signal(members: Iterable[Member], number: signal.Signals) -> None:
    for member in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member.pid, number)


class RayProcess:
    """A running `ray start --block` and everything below it."""

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path, record: Path) -> None:
        """Start it.

        Args: arguments, behind `ray start`; environment, whole; log, file for its output; record, file for the pids of its tree
        (what an earlier, killed owner left in it is reaped first).
        """
        reap(record)
        self.log, self.record = log, record
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                ray_command("--block", *arguments),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._known: dict[Member, None] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._record_forever, name="ray-pids", daemon=True).start()

    @property
    def pid(self) -> int:
        """The pid of the `ray start` process itself."""
        return self._child.pid

    def poll(self) -> int | None:
        """None while `ray start` runs, else its exit code."""
        return self._child.poll()

    def members(self) -> list[Member]:
        """All members of the tree seen so far that still run; also refreshes the record on disk."""
        with self._lock:
            for member in members_of(self._child.pid):
                self._known.setdefault(member)
            # An orphaned member's own children are found through it, no longer through the root.
            for orphan in [m for m in living(self._known) if m.name in ("raylet", "gcs_server")]:
                for member in members_of(orphan.pid):
                    self._known.setdefault(member)
            alive = living(self._known)
            self._known = dict.fromkeys(alive)
            partial = self.record.with_suffix(".new")
            partial.write_text(json.dumps([[m.pid, m.born, m.name] for m in alive]))
            partial.replace(self.record)
            return alive

    def raylet_pid(self) -> int | None:
        """The pid of the tree's raylet, if it runs."""
        return next((m.pid for m in self.members() if m.name == "raylet"), None)

    def stop(self, grace_s: float = 5.0) -> int:
        """End the whole tree: SIGTERM to `ray start`, then SIGKILL to what is left. Returns the number of members killed hard."""
        self._ended.set()
        self.members()
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(grace_s)
        count = _kill(self.members(), 0.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self.record.unlink(missing_ok=True)
        return count

    def explain(self) -> str:
        """The last lines of its output."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return ""

    def _record_forever(self) -> None:
        while not self._ended.wait(_RECORD_INTERVAL_S) and self._child.poll() is None:
            with contextlib.suppress(OSError, psutil.Error):
                self.members()
