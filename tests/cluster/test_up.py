"""`qubix up` over one data folder: what lasts, what is restarted, what is left behind (nothing)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix.cli import runfile, up
from qubix.cli.processes import alive

pytestmark = pytest.mark.cluster


class Machine:
    """The command line as one user of this machine has it. Args: folder, which everything of the test lies below."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "platform"
        self.environment = {**os.environ, "QUBIX_CONFIG": str(folder / "config.json")}

    def qubix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "qubix.cli.main", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=self.environment,
        )

    def told(self, *arguments: str) -> dict[str, Any]:
        """What a command that must succeed says with --json."""
        answer = self.qubix(*arguments, "--json")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        document: dict[str, Any] = json.loads(answer.stdout)
        return document

    def up(self, *arguments: str) -> dict[str, Any]:
        """Start the platform."""
        return self.told("up", "--detach", "--data-dir", str(self.data_dir), "--port", "0", *arguments)

    def run(self) -> runfile.RunFile:
        """What runs."""
        found = runfile.read(self.data_dir)
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    up.stop(made.data_dir)


def wait_for(what: str, condition: Any, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


def test_a_first_start_that_fails_loses_no_operators_key_and_leaves_other_platforms_ports_alone(machine: Machine) -> None:
    # 8500 is the port that Serve's own proxy has where nobody gives it another.
    with socket.socket() as taken, socket.socket() as of_another:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with contextlib.suppress(OSError):  # then it is somebody's indeed
            of_another.bind(("127.0.0.1", 8500))
        port = str(taken.getsockname()[1])
        failed = machine.qubix("up", "--detach", "--data-dir", str(machine.data_dir), "--port", port, "--json")
        assert failed.returncode == 1, failed.stdout
        assert (machine.data_dir / runfile.OPERATOR_KEY).stat().st_mode & 0o777 == 0o600
        assert machine.up()["operator_key"].startswith("qk_")
    assert not (machine.data_dir / runfile.OPERATOR_KEY).exists()


def test_it_is_alone_on_its_folder_starts_again_what_dies_and_leaves_nothing(machine: Machine) -> None:
    first = machine.up("--set", "network=none")
    assert first["operator_key"].startswith("qk_")

    # A second supervisor over the same folder is refused, and harms nothing.
    second = machine.qubix("up", "--data-dir", str(machine.data_dir), "--port", "0")
    assert second.returncode == 1
    assert "already" in second.stderr
    assert machine.told("status", "--data-dir", str(machine.data_dir))["ready"]
    checked = machine.told("doctor", "--data-dir", str(machine.data_dir))["checks"]
    assert {check["name"]: check["verdict"] for check in checked}["ledger"] == "ok"
    ready = httpx.get(first["urls"]["application"] + "/health/ready", timeout=10)
    assert ready.json()["parts"]["ray"] == {"ok": True, "detail": "answers"}

    # A crashed controller and a crashed fabric daemon come back.
    for name in ("controller", "fabric"):
        process = machine.run().processes[name]
        os.kill(process.pid, signal.SIGKILL)
        wait_for(f"{name} is started again", lambda n=name, p=process: machine.run().processes.get(n) not in (None, p))
    wait_for("ready again", lambda: machine.qubix("status", "--data-dir", str(machine.data_dir)).returncode == 0)

    # Down leaves nothing: no process, no runtime folder, no run.json.
    ran = machine.run()
    assert machine.told("down", "--data-dir", str(machine.data_dir)) == {"stopped": True, "data_dir": str(machine.data_dir)}
    assert [name for name, process in ran.processes.items() if alive(process)] == []
    assert not Path(ran.runtime_dir).exists()
    assert runfile.read(machine.data_dir) is None
    assert machine.qubix("status", "--data-dir", str(machine.data_dir)).returncode == 100


def test_an_owner_that_dies_takes_its_platform_with_it(machine: Machine) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run, _ = up.start_detached(machine.data_dir, owner=owner.pid)
    assert run.supervisor is not None
    owner.kill()
    owner.wait()
    wait_for("the platform stops", lambda: runfile.read(machine.data_dir) is None)
    wait_for("its supervisor ends", lambda: not alive(run.supervisor))
    assert [name for name, process in run.processes.items() if alive(process)] == []
