"""A real Ray cluster for tests: one head per test session, provider nodes as tests ask for them, real sandboxes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from qubix.agent.fork_server import TITLE
from qubix.agent.home import AgentConfig, Home
from qubix.agent.runner import RunRequest
from qubix.fabric.head import Head, start_head
from qubix.fabric.labels import NodeLabels
from qubix.fabric.node import NodeSettings, RayNode, start_node
from qubix.sandbox.spec import Program, SandboxSpec

PROGRAMS = {
    "hello": "print('go', flush=True)\nprint('done', flush=True)\n",
    "sleep": "import time\nprint('go', flush=True)\ntime.sleep(120)\n",
    "fail": "raise SystemExit(3)\n",
}


@dataclass
class RayMachine:
    """One provider node of the cluster."""

    node: RayNode
    home: Home
    ray_node_id: str
    worker_id: str

    def device(self, number: int) -> str:
        """The uuid of one of its declared devices."""
        from qubix.agent.devices import DeclaredDevices

        return DeclaredDevices(["RTX_4090:24GB:8"], self.worker_id).devices()[number].uuid

    def kill(self) -> None:
        """SIGKILL its raylet."""
        pid = self.node.process.raylet_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


@dataclass
class RayWorld:
    """The cluster and what runs in it."""

    folder: Path
    head: Head
    machines: list[RayMachine] = field(default_factory=list)

    def add(
        self, *, gpus: int = 1, server_url: str = "http://127.0.0.1:9", node_id: str | None = None, home: Path | None = None
    ) -> RayMachine:
        """Let a machine join, by the way of `qubix provider join`. server_url: where its agent dials."""
        number = len(self.machines)
        worker_id = f"w{number}-{uuid4().hex[:6]}"
        kept = Home(home or self.folder / f"h{number}")
        config = AgentConfig(
            server_url=server_url,
            node_id=node_id or uuid4(),
            provider_id=uuid4(),
            worker_id=worker_id,
            declared_gpus=(f"RTX_4090:24GB:{gpus}",),
        )
        kept.write_config(config)
        runtime = self.folder / f"n{number}"
        runtime.mkdir()
        labels = NodeLabels("p1", worker_id, "eu-central", "standard", "RTX_4090", 24)
        node = start_node(NodeSettings(self.head.where.address, Path(self.head.where.token_path), runtime, kept.folder, labels, gpus))
        machine = RayMachine(node, kept, self._id_of(worker_id), worker_id)
        self.machines.append(machine)
        return machine

    def program(self, kind: str) -> Program:
        """Trusted code for the sandbox."""
        folder = self.folder / "programs" / kind
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o755)
            (folder / "main.py").write_text(PROGRAMS[kind])
        sdk = self.folder / "sdk"
        sdk.mkdir(mode=0o755, exist_ok=True)
        return Program(folder, "main.py", sdk)

    def request(self, machine: RayMachine, kind: str, *devices: int) -> RunRequest:
        """An attempt for that machine."""
        attempt = uuid4()
        spool = self.folder / f"spool-{attempt.hex[:8]}"
        spool.mkdir()
        spec = SandboxSpec(attempt, machine.home.sandboxes, spool, self.program(kind), limit_ms=60_000)
        return RunRequest(spec, tuple((u, machine.home.lock_path(u)) for u in map(machine.device, devices)))

    def kill_runner(self) -> None:
        """SIGKILL the processes that run attempts now."""
        for machine in self.machines:
            for member in machine.node.process.members():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(member.pid)
                    if process.name() == TITLE.decode():
                        process.kill()

    def stop(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        for machine in self.machines:
            machine.node.stop(2.0)
        self.head.stop(2.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _id_of(self, worker_id: str) -> str:
        import ray

        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for node in ray.nodes():  # type: ignore[no-untyped-call]
                if node["Alive"] and node["Labels"].get("qubix.worker-id") == worker_id:
                    return str(node["NodeID"])
            time.sleep(0.05)
        raise AssertionError("the node never appeared")


@pytest.fixture(scope="session")
def ray_world() -> Iterator[RayWorld]:
    """A head, and this process as a driver of it."""
    folder = Path(tempfile.mkdtemp(prefix="qt", dir="/tmp"))
    folder.chmod(0o755)
    head = start_head(folder)
    world = RayWorld(folder, head)
    try:
        os.environ.update(head.environment)
        import ray
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        # Whoever imported Ray before has made it read its environment without the token already.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        ray.init(address=head.where.address, namespace="qubix", log_to_driver=False, logging_level=logging.WARNING)
        yield world
    finally:
        world.stop()
        for name in head.environment:
            os.environ.pop(name, None)
