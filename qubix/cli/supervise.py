"""Keep child processes up: start in order, restart with back-off what may be restarted, stop in reverse, leave nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from qubix.cli import runfile
from qubix.cli.processes import Running, descendants, end, reap, seen
from qubix.kernel.errors import QubixError, Unavailable

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""A child that ran this long has earned a fresh back-off."""
WATCH_INTERVAL_S: Final = 0.2
GRACE_S: Final = 10.0
START_TIMEOUT_S: Final = 300.0
LOG_TAIL_BYTES: Final = 1500
FAILURE_VARIABLE: Final = "QUBIX_FAILURE_FILE"
"""Names the file in which a detached supervisor leaves the error that ended it, for the command that waits for it."""


class NotStarted(Unavailable):
    """A detached supervisor ended with an error of its own, which is told again here. Args: code, that error's."""

    code = "not_started"

    def __init__(self, message: str, *, code: str, next_step: str = "", **extra: Any) -> None:
        super().__init__(message, next_step=next_step, **extra)
        self.problem = code


def leave_word(error: QubixError, code: str) -> None:
    """Leave an error to whoever started this process and waits, if somebody does."""
    if path := os.environ.get(FAILURE_VARIABLE):
        with contextlib.suppress(OSError):
            word = {"message": error.message, "next_step": error.next_step, "code": code, "extra": error.extra}
            Path(path).write_text(json.dumps(word, default=str))


def backoff_s(failures: int) -> float:
    """How long to wait before the next start after `failures` crashes in a row: doubling, bounded."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(max(failures - 1, 0), 16), BACKOFF_MAX_S)


@dataclasses.dataclass
class Comeback:
    """When a node that fell out of its cluster, or could not join it, tries again. Pure.

    Args: jitter, 0 to 1, asked for each wait, which is half to one and a half of the back-off: machines that could not join together must not all try
        again together.
    """

    jitter: Callable[[], float] = random.random
    failures: int = 0
    due_at: float = 0.0

    def fell(self, now: float, ran_s: float) -> None:
        """It ran for `ran_s` seconds, and does no more."""
        self.failures = 1 if ran_s > STEADY_S else self.failures + 1
        self._wait(now)

    def failed(self, now: float) -> None:
        """It did not come up, however long it took to find out."""
        self.failures += 1
        self._wait(now)

    def _wait(self, now: float) -> None:
        self.due_at = now + backoff_s(self.failures) * (0.5 + self.jitter())


@dataclasses.dataclass
class Child:
    """One supervised process.

    Args: name; argv; env, its whole environment; log, where its output goes; ready, a line prefix on stdout that says it
        is up (None: up at once); once, it ends by itself after being ready and is not restarted.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ready: str | None = None
    once: bool = False
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = 0.0
    due_at: float = 0.0
    said: str = ""
    held: bool = False
    """Not started again by `look_after`, for what it needs is away."""

    def start(self) -> None:
        """Start it in a session of its own, output appended to its log."""
        with self.log.open("ab") as log:
            mark = log.tell()
            self.process = subprocess.Popen(
                self.argv, env=dict(self.env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        self.started_at = time.monotonic()
        self._mark = mark

    def wait_until_ready(self, timeout_s: float, stopping: threading.Event | None = None) -> str:
        """Wait for the ready line. Returns: what stands behind the prefix. Raises: Unavailable with the end of its log."""
        if self.ready is None:
            return ""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not (stopping is not None and stopping.is_set()):
            if self.said_ready():
                return self.said
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise Unavailable(
            f"{self.name} did not come up: {self.output()[-LOG_TAIL_BYTES:].strip()}", next_step=f"read {self.log}; then qubix doctor"
        )

    def said_ready(self) -> bool:
        """Whether its ready line has come since its last start; what stands behind the prefix is then in `said`."""
        for line in self.output().splitlines():
            if self.ready is not None and line.startswith(self.ready):
                self.said = line[len(self.ready) :].strip()
                return True
        return False

    def output(self) -> str:
        """What it printed since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode(errors="replace")

    @property
    def running(self) -> Running | None:
        """The process, None when it has ended."""
        return seen(self.process.pid) if self.process is not None and self.process.poll() is None else None

    def ended(self) -> bool:
        """Whether it was started and runs no more."""
        return self.process is not None and self.process.poll() is not None

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, then SIGKILL, to the process and everything below it."""
        if self.process is None:
            return
        below = descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end(below, grace_s=2.0)

    _mark: int = 0


def look_after(child: Child, now: float) -> bool:
    """One look: restart a crashed child once its back-off is over. Returns: whether it was started again."""
    if not child.ended() or child.once or child.held:
        return False
    if child.due_at == 0.0:
        child.failures = 1 if now - child.started_at > STEADY_S else child.failures + 1
        child.due_at = now + backoff_s(child.failures)
    if now < child.due_at:
        return False
    child.due_at = 0.0
    child.start()
    return True


def start_and_wait(line: Sequence[str], folder: Path, what: str, *, extra: Mapping[str, str] = {}) -> runfile.RunFile:
    """Start a supervisor of its own over `folder` and wait until its run.json says that it is ready.

    Args: line, its command line; what, named in the error; extra, further variables of its environment.
    Raises: NotStarted with its own error, and nothing of it is left behind; Unavailable with the end of its log, which is kept, for anything else.
    """
    fresh = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path, failure = folder / "supervisor.log", folder / "failure.json"
    with os.fdopen(os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as log:
        environment = {**os.environ, **extra, FAILURE_VARIABLE: str(failure)}
        supervisor = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env=environment
        )
    try:
        if run := _until_ready(supervisor, folder):
            supervisor.returncode = 0  # it outlives this process by design: Popen must not complain of that
            return run
    finally:  # given up here, or from outside
        if supervisor.poll() is None:
            supervisor.terminate()
            supervisor.wait(GRACE_S * 6)
    if failure.exists():
        word = json.loads(failure.read_text())
        _clear(folder, (failure, log_path), fresh=fresh)
        raise NotStarted(f"{what} did not start: {word['message']}", code=word["code"], next_step=word["next_step"], **word["extra"])
    told = log_path.read_text(errors="replace")[-LOG_TAIL_BYTES:].strip()
    raise Unavailable(f"{what} did not start: {told}", next_step=f"read {log_path}; qubix doctor checks this machine")


def _until_ready(supervisor: subprocess.Popen[bytes], folder: Path) -> runfile.RunFile | None:
    """Its run file once that says so; None when it has ended, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and supervisor.poll() is None:
        run = runfile.read(folder)
        if run is not None and run.state == "ready" and run.supervisor is not None and run.supervisor.pid == supervisor.pid:
            return run
        time.sleep(0.1)
    return None


def _clear(folder: Path, files: Sequence[Path], *, fresh: bool) -> None:
    """Remove the files, and a folder that was made for nothing but them and its lock."""
    for file in files:
        file.unlink(missing_ok=True)
    if fresh and {entry.name for entry in folder.iterdir()} <= {"lock"}:
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()


@contextlib.contextmanager
def signals_set(stopping: threading.Event) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP set the event instead of ending the process."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def make_runtime_dir() -> Path:
    """A short private folder: socket paths are limited to about 100 bytes, so it never lies below the data folder."""
    while True:
        folder = Path(f"/tmp/qx-{secrets.token_hex(4)}")  # noqa: S108  (mkdir fails if it exists; mode 0700)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder


def end_all_below(grace_s: float = 3.0) -> list[Running]:
    """End every process that is left below this one, adopted orphans included. Returns: those that had to be killed."""
    killed = end(descendants(os.getpid()), grace_s=grace_s)
    reap()
    return killed
