"""Real sandboxes, started as root and as an ordinary user, by a process of their own."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID, uuid4

import pytest

from qubix.sandbox import stop

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SDK = REPOSITORY / "jobs_library" / "sdk"
NOBODY = 65534
SMALL = {
    "memory_bytes": 512 << 20,
    "pids_max": 64,
    "disk_bytes": 32 << 20,
    "shm_bytes": 8 << 20,
    "tmp_bytes": 32 << 20,
    "log_bytes_max": 1 << 20,
}


@dataclass
class Outcome:
    """All events of an attempt."""

    events: list[dict[str, Any]]
    seconds: float = 0.0

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def ended(self) -> dict[str, Any]:
        (end,) = self.of("Ended")
        assert self.events[-1] is end
        return cast(dict[str, Any], end)

    def text(self, *streams: str) -> str:
        return "".join(event["text"] for event in self.of("LogText") if not streams or event["stream"] in streams)


@dataclass
class Running:
    """An attempt under way, in its own process."""

    process: subprocess.Popen[bytes]
    attempt: UUID
    base: Path
    events: list[dict[str, Any]] = field(default_factory=list)

    def until(self, kind: str, timeout_s: float = 20.0, containing: str = "") -> dict[str, Any]:
        """Read events up to the first of a kind."""
        output = cast(IO[bytes], self.process.stdout)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not select.select([output], [], [], 0.2)[0]:
                continue
            line = output.readline()
            assert line, f"the driver ended: {self.events}"
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == kind and containing in str(self.events[-1]):
                return self.events[-1]
        raise AssertionError(f"no {kind} within {timeout_s} s: {self.events}")

    def until_started(self) -> int:
        """The first process of the sandbox, as the machine numbers it."""
        found = [event for event in self.events if event["event"] == "Started"] or [self.until("Started")]
        return int(found[0]["pid"])

    def wait(self, timeout_s: float = 60.0) -> Outcome:
        began = time.monotonic()
        output, _ = self.process.communicate(timeout=timeout_s)
        self.events += [json.loads(line) for line in output.splitlines()]
        return Outcome(self.events, time.monotonic() - began)


class Containment:
    """Starts attempts as root, or as nobody."""

    def __init__(self, ordinary: bool) -> None:
        self.ordinary = ordinary
        self.user = NOBODY if ordinary and os.geteuid() == 0 else os.geteuid()
        self.folder = Path(tempfile.mkdtemp(prefix="qx-test-", dir="/tmp"))
        self.base, self.spool = self.folder / "base", self.folder / "spool"
        for path in (self.base, self.spool, self.folder / "programs"):
            path.mkdir()
        self._give_away()
        self.started: list[Running] = []

    def _give_away(self) -> None:
        if self.user != os.geteuid():
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self.user, self.user)

    def command(self, *words: str) -> list[str]:
        """A command line that runs as this user."""
        if self.user == os.geteuid():
            return list(words)
        sources = dict.fromkeys([sys.base_prefix, sysconfig.get_paths()["purelib"], str(REPOSITORY), str(HERE)])
        return [sys.executable, "-I", "-S", str(HERE / "as_nobody.py"), *sources, "--", *words]

    def start(
        self,
        script: str,
        *,
        params: Mapping[str, str] | None = None,
        limits: Mapping[str, float] | None = None,
        limit_ms: int = 20_000,
        inputs: Mapping[str, Path] | None = None,
        restore: Path | None = None,
        inherit_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        program: Path | None = None,
    ) -> Running:
        """Start a script (its text) or an installed program."""
        attempt = uuid4()
        if program is None:
            program = self.folder / "programs" / str(attempt)
            program.mkdir()
            (program / "main.py").write_text(script)
        content = {
            "attempt": str(attempt),
            "base": str(self.base),
            "spool": str(self.spool),
            "program": str(program),
            "sdk": str(SDK),
            "limit_ms": limit_ms,
            "params": dict(params or {}),
            "inputs": {name: str(path) for name, path in (inputs or {}).items()},
            "restore": str(restore) if restore else None,
            "limits": {**SMALL, **(limits or {})},
            "inherit_fds": list(inherit_fds),
        }
        python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
        process = subprocess.Popen(
            self.command(python, "-B", str(HERE / "driver.py")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # a buffer could hold a line that select no longer sees
            pass_fds=tuple(inherit_fds),
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": sysconfig.get_paths()["purelib"], **(environment or {})},
        )
        stdin = cast(IO[bytes], process.stdin)
        stdin.write(json.dumps(content).encode() + b"\n")
        stdin.flush()
        running = Running(process, attempt, self.base)
        self.started.append(running)
        return running

    def run(self, script: str, **options: Any) -> Outcome:
        """Start and wait."""
        return self.start(script, **options).wait()

    def close(self) -> None:
        for running in self.started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.communicate()
        stop.clean(self.base)
        shutil.rmtree(self.folder, ignore_errors=True)


USERS = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


@pytest.fixture(scope="module", params=USERS)
def containment(request: pytest.FixtureRequest) -> Iterator[Containment]:
    """Both kinds of user that an agent may run as."""
    made = Containment(ordinary=request.param == "ordinary")
    yield made
    made.close()
