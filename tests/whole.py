"""The whole product for tests: `qubix up` and two machines that joined as `qubix provider join` does. Nothing in it is a stand-in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from qubix.cli import config, runfile
from qubix.cli.client import Client
from qubix.cli.supervise import start_and_wait
from qubix.cli.up import start_detached, stop
from qubix.identity.model import Scope as Grant
from qubix.kernel.errors import QubixError

FINAL = ("COMPLETED", "FAILED", "CANCELLED")
FUNDS = 1_000_000_000
PASSWORD = "a long enough password"
_ENVIRONMENT = threading.Lock()

STEPS = '''
"""Counts to `steps`, one every `pause_s`; a checkpoint a second at most; resumes where the last one left."""
import json, pathlib, sys, time
import qubix_job as job

steps, pause_s = (int(sys.argv[1]), float(sys.argv[2]))
restored = job.restored()
first = json.loads(restored.read_text())["step"] + 1 if restored else 1
print(f"begins at {first}", flush=True)
saved = time.monotonic()
for step in range(first, steps + 1):
    time.sleep(pause_s)
    print(f"step {step}", flush=True)
    job.progress(100 * step / steps, f"step {step}")
    if time.monotonic() - saved > 1:
        saved = time.monotonic()
        pathlib.Path("state.json").write_text(json.dumps({"step": step}))
        job.checkpoint("state.json", pct=100 * step / steps)
pathlib.Path("result.txt").write_text(str(steps))
'''


@dataclass(frozen=True)
class Machine:
    """A provider's machine: its node, its home, the process that keeps it a member."""

    node_id: str
    home: Path
    member_pid: int

    def tree(self) -> list[psutil.Process]:
        """Every process of it: raylet, agent, runners, sandboxes."""
        member = psutil.Process(self.member_pid)
        return [member, *member.children(recursive=True)]

    def named(self, part: str) -> psutil.Process:
        """The one process whose command line has `part`."""
        found = [process for process in self.tree() if part in _line(process)]
        assert len(found) == 1, [_line(process)[:80] for process in self.tree()]
        return found[0]

    def programs(self, name: str) -> list[psutil.Process]:
        """Those that run this program; what ends meanwhile is none of them."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                found += [process] if process.name() == name else []
        return found


class Whole:
    """A running platform with two machines, a provider and a consumer."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.data_dir = folder / "data"
        self.folder = folder
        self.settings = dict(settings)
        self.machines: dict[str, Machine] = {}
        self.operator_key = ""
        self._clients: list[Client] = []
        self.provider: Client

    def up(self) -> str | None:
        """Start the platform, or start it again on the same data. Returns: the operator's key, where it is a new one."""
        run, key = start_detached(self.data_dir, settings=self.settings, owner=os.getpid())
        self.url = run.urls["application"]
        self.operator_key = key or self.operator_key
        return key

    def run(self) -> runfile.RunFile:
        """What runs."""
        found = runfile.read(self.data_dir)
        assert found is not None
        return found

    def down(self) -> None:
        """Stop machines and platform."""
        for client in self._clients:
            client.http.close()
        for machine in self.machines.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in machine.tree():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()
                psutil.Process(machine.member_pid).terminate()
        for machine in self.machines.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(machine.member_pid).wait(120)
        self.machines.clear()
        stop(self.data_dir)

    def account(self) -> Client:
        """A new user, logged in by an API key."""
        who = {"email": f"u{uuid4().hex[:12]}@qubix.example", "password": PASSWORD}
        httpx.post(f"{self.url}/api/auth/signup", json=who, timeout=20).raise_for_status()
        token = httpx.post(f"{self.url}/api/auth/login", json=who, timeout=20).raise_for_status().json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        made = httpx.post(
            f"{self.url}/api/auth/keys", json={"name": "test", "scopes": [*Grant]}, headers=bearer, timeout=20
        ).raise_for_status()
        self._clients.append(Client(self.url, made.json()["key"]))
        return self._clients[-1]

    def join(
        self,
        name: str,
        gpu: str,
        price: int,
        provider: Client,
        *,
        url: str = "",
        before: Sequence[str] = (),
        folder: Path | None = None,
        token: Path | None = None,
        environment: Mapping[str, str] = {},
    ) -> Machine:
        """Add a machine, as `qubix provider join --detach` does.

        Args: url, where its agent finds the platform, if not at its own address; before, what starts the command, as another user
            for example; folder, for its home (default: with the others'); token, its own copy of the cluster's; environment, further variables.
        """
        home = (folder or self.folder) / name
        key = str(provider.http.headers["Authorization"]).removeprefix("Bearer ")
        account = {**environment, "QUBIX_CONFIG": str((folder or self.folder) / f"{name}.json")}
        saved = _saved(Path(account["QUBIX_CONFIG"]), config.Account(url or self.url, key))
        line = [*before, sys.executable, "-m", "qubix.cli.main", "provider", "join", "--declare-gpu", gpu, "--price", str(price)]
        line += ["--name", name, "--home", str(home), "--owner-pid", str(os.getpid())]
        if token is None:
            line += ["--data-dir", str(self.data_dir)]
        else:
            run = runfile.read(self.data_dir)
            assert run is not None
            line += ["--address", run.facts["ray_address"], "--token-file", str(token)]
        if folder is not None:
            home.mkdir(mode=0o700)
            for path in (home, saved):
                os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
        run = _started(line, home, name, account)
        assert run.supervisor is not None
        self.machines[name] = Machine(run.facts["node_id"], home, run.supervisor.pid)
        return self.machines[name]

    def release(self, name: str) -> None:
        """End a machine's processes; whether it leaves the market first is the caller's business."""
        machine = self.machines.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            member = psutil.Process(machine.member_pid)
            member.terminate()
            member.wait(120)

    def pid_of(self, name: str) -> int:
        """The pid of one of the platform's own processes."""
        run = runfile.read(self.data_dir)
        assert run is not None
        return run.processes[name].pid

    def ray_processes(self, part: str) -> list[psutil.Process]:
        """The platform's Ray processes with this in their name."""
        run = runfile.read(self.data_dir)
        assert run is not None
        assert run.supervisor is not None
        return [process for process in psutil.Process(run.supervisor.pid).children(recursive=True) if part in _line(process)]

    def audit(self) -> list[Any]:
        """What the ledger's audit complains of."""
        with Client(self.url, self.operator_key) as operator:
            problems: list[Any] = operator.get("/api/audit")["problems"]
        return problems


class Consumer:
    """A consumer with funds, and the verbs of the tests."""

    def __init__(self, whole: Whole, funds: int = FUNDS) -> None:
        self.client = whole.account()
        self.client.post("/api/wallets/faucet", {"amount": funds})

    def run(self, script: str, arguments: str = "", **extra: Any) -> str:
        """Create a job that runs `script`. Returns its id."""
        name = f"{uuid4().hex}.py"
        upload = self.client.http.post("/api/uploads", params={"filename": name}, content=script.encode())
        upload.raise_for_status()
        body: dict[str, Any] = {
            "kind": "script",
            "params": {"arguments": arguments},
            "inputs": [{"name": "main.py", "upload_id": upload.json()["id"]}],
            "duration_max_s": 600,
            **extra,
        }
        created: dict[str, Any] = self.client.post("/api/jobs/create", body)
        return str(created["job"]["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        found: dict[str, Any] = self.client.get(f"/api/jobs/{job_id}")
        return found

    def until(self, job_id: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """Look until `holds`; fail with what was seen last."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.job(job_id)
            if holds(job):
                return job
            assert time.monotonic() < deadline, json.dumps(job, indent=1)
            time.sleep(0.1)

    def ended(self, job_id: str, timeout_s: float = 90) -> dict[str, Any]:
        """The job at its end."""
        return self.until(job_id, lambda job: job["state"] in FINAL and job["receipt"]["final"], timeout_s)

    def lines(self, job_id: str) -> list[str]:
        """What it printed."""
        items = self.client.get(f"/api/jobs/{job_id}/logs", limit=1000)["items"]
        return "".join(item["text"] for item in items if item["stream"] == "out").splitlines()


@contextlib.contextmanager
def whole_platform(*, machines: bool = True, **settings: str) -> Iterator[Whole]:
    """Bring it up, and take all of it down again. Its money is the faucet's, unless another network is named."""
    folder = Path(tempfile.mkdtemp(prefix="qubix-whole-"))
    whole = Whole(folder, {"dispute_window_s": "2", "rate_limits": "false", "network": "none", **settings})
    try:
        whole.up()
        if machines:
            whole.provider = whole.account()
            whole.join("ada", "RTX_4090:24GB", 720_000, whole.provider)
            whole.join("bob", "RTX_3090:24GB", 360_000, whole.provider)
        yield whole
    finally:
        whole.down()
        shutil.rmtree(folder, ignore_errors=True)


def _started(line: list[str], home: Path, name: str, extra: Mapping[str, str]) -> runfile.RunFile:
    """The machine's processes. `ray start` of a node gives up by itself after 30 s (ray/_private/node.py) where the processors are taken."""
    for _ in range(2):
        with contextlib.suppress(QubixError):
            return start_and_wait(line, home, name, extra=extra)
    return start_and_wait(line, home, name, extra=extra)


def _saved(path: Path, account: config.Account) -> Path:
    """Log in as `account` in that configuration file."""
    with _ENVIRONMENT:
        outside = os.environ.get("QUBIX_CONFIG")
        os.environ["QUBIX_CONFIG"] = str(path)
        try:
            return config.save(account)
        finally:
            del os.environ["QUBIX_CONFIG"]
            if outside is not None:
                os.environ["QUBIX_CONFIG"] = outside


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""
