"""The real agent: a Ray actor on a provider node, Ray tasks, real sandboxes; only the platform's end of the socket is played."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from qubix.agent.home import Home
from qubix.agent.protocol import DesiredAttempt, Exit, Finished, Frame, InputFile, Log, Running, Status
from qubix.fabric.process import living
from tests.fakes.platform import FakePlatform, desired_attempt
from tests.fakes.ray_world import RayMachine, RayWorld

pytestmark = [pytest.mark.cluster, pytest.mark.sandbox, pytest.mark.filterwarnings("default")]

DAEMON = """
import asyncio, sys
from qubix.fabric.daemon import serve
class Reports:
    async def node_seen(self, worker_id, ray_node_id, labels): print("seen", ray_node_id, flush=True)
    async def node_dead(self, ray_node_id): print("dead", ray_node_id, flush=True)
asyncio.run(serve(sys.argv[1], Reports()))
"""


class Node:
    """A machine with its platform, and the daemon that keeps its agent."""

    def __init__(self, world: RayWorld, machine: RayMachine, platform: FakePlatform) -> None:
        self.world, self.machine, self.platform = world, machine, platform
        self._daemon: asyncio.subprocess.Process | None = None

    async def start_daemon(self) -> None:
        """`python -m qubix.fabric.daemon`, reporting to its output instead of a database."""
        environment = os.environ | self.world.head.environment
        address = self.world.head.where.address
        self._daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DAEMON, address, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )

    async def kill_daemon(self) -> None:
        """SIGKILL."""
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self._daemon.kill()
            await self._daemon.wait()
            self._daemon = None

    async def reported(self, line: str, timeout_s: float = 120) -> None:
        """Wait for the daemon to report."""
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line not in (await self._daemon.stdout.readline()).decode():
                pass

    def script(self, text: str) -> DesiredAttempt:
        """An attempt that runs this Python text."""
        self.platform.inputs["main.py"] = text.encode()
        entry = InputFile(name="main.py", sha256=hashlib.sha256(text.encode()).hexdigest(), size=len(text.encode()))
        return desired_attempt("script", self.machine.device(0), inputs=(entry,))

    async def run_script(self, text: str) -> Finished:
        """Run it to its end."""
        one = self.script(text)
        await self.platform.want(one)
        await self.platform.until(lambda: [f for f in self.platform.of(Finished) if f.attempt == one.id], 120)
        return next(f for f in self.platform.of(Finished) if f.attempt == one.id)

    async def agent_pid(self) -> int:
        """The process of the node's agent."""
        import ray

        from qubix.fabric.agent_actor import NAMESPACE, agent_name

        told = await ray.get_actor(agent_name(self.machine.ray_node_id), namespace=NAMESPACE).ping.remote()
        return int(told["pid"])

    def pids(self, name: str) -> list[int]:
        """Processes below this node whose name begins so."""
        return [m.pid for m in self.machine.node.process.members() if m.name.startswith(name)]

    def sandboxes(self) -> list[psutil.Process]:
        """Processes of attempts."""
        found = []
        for pid in self.pids("bwrap") or []:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found


@pytest.fixture
async def node(ray_world: RayWorld, tmp_path: Path) -> AsyncIterator[Node]:
    number = uuid4()
    home = Home(ray_world.folder / f"a{number.hex[:6]}")
    platform = FakePlatform(number, home.public_key_hex())
    async with platform.serving():
        url = f"http://127.0.0.1:{platform.port}"
        machine = await asyncio.to_thread(lambda: ray_world.add(server_url=url, node_id=str(number), home=home.folder))
        made = Node(ray_world, machine, platform)
        await made.start_daemon()
        await platform.until(lambda: platform.of(Status), 180)
        yield made
        await made.kill_daemon()
        await asyncio.to_thread(machine.node.stop, 1.0)


async def test_scripts_run_on_a_node_one_after_the_other(node: Node) -> None:
    end = await node.run_script("print('cold', flush=True)")
    assert (end.exit, end.exit_code) == (Exit.EXITED, 0)
    took, steps = [], []
    seen: dict[str, float] = {}

    def note(frame: Frame) -> None:
        seen.setdefault(type(frame).__name__, time.monotonic())

    node.platform.answer = note
    for n in range(5):
        one = node.script(f"print('line {n}', flush=True)")
        seen.clear()
        began = time.monotonic()
        await node.platform.want(one)
        await node.platform.until(lambda n=n: any(f"line {n}" in f.text for f in node.platform.of(Log)), 120)  # type: ignore[misc]
        took.append(time.monotonic() - began)
        steps.append({name: round((seen[name] - began) * 1000) for name in ("Accept", "Running", "Log")})
        await node.platform.until(lambda i=one.id: any(f.attempt == i for f in node.platform.of(Finished)), 120)  # type: ignore[misc]
    print("desired to first line, ms:", [round(t * 1000) for t in took], steps)


def oom_score(pid: int) -> int:
    """How gladly the kernel ends a process where memory runs out."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_a_killed_agent_takes_its_attempt_along_and_the_next_one_reports_it(node: Node) -> None:
    one = node.script("import time\nprint('go', flush=True)\ntime.sleep(100)")
    await node.platform.want(one)
    await node.platform.until(lambda: node.platform.of(Running), 120)
    agent = await node.agent_pid()
    held = node.machine.device(0)
    assert {oom_score(sandbox.pid) > oom_score(agent) for sandbox in node.sandboxes()} == {True}, (
        "where memory runs out, the job is ended first"
    )
    os.kill(agent, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not node.machine.home.device_free(held):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await node.platform.until(lambda: node.platform.of(Finished), 120)
    assert node.platform.of(Finished)[0].exit is Exit.SANDBOX_FAILED
    assert len({frame.key for frame in node.platform.of(Running)}) == 1
    assert node.platform.hellos[-1].alive == (one.id,), "nothing runs, but its end is still on its way"
    assert (await node.run_script("print('again')")).exit_code == 0


async def test_a_killed_daemon_disturbs_nothing_and_new_attempts_still_start(node: Node) -> None:
    one = node.script("import time\nprint('go', flush=True)\ntime.sleep(100)")
    await node.platform.want(one)
    await node.platform.until(lambda: node.platform.of(Running), 120)
    await node.kill_daemon()
    await asyncio.sleep(3)
    assert node.platform.of(Finished) == []
    await node.platform.want()
    await node.platform.until(lambda: node.platform.of(Finished), 120)
    assert (await node.run_script("print('without a daemon')")).exit_code == 0
    await node.start_daemon()
    assert (await node.run_script("print('with a new one')")).exit_code == 0
    assert len(node.platform.hellos) == 1


async def test_a_killed_raylet_leaves_no_process_and_its_death_is_reported(node: Node) -> None:
    one = node.script("import time\nprint('go', flush=True)\ntime.sleep(100)")
    await node.platform.want(one)
    await node.platform.until(lambda: node.platform.of(Running), 120)
    before = node.machine.node.process.members()
    node.machine.kill()
    began = time.monotonic()
    await node.reported(f"dead {node.machine.ray_node_id}")
    print(f"raylet SIGKILL to report: {time.monotonic() - began:.1f} s")
    async with asyncio.timeout(60):
        while not node.machine.home.device_free(node.machine.device(0)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await asyncio.to_thread(node.machine.node.stop, 1.0)
    assert living(before) == []
    # What the dying agent may have said must not look like the job's own failure.
    assert [f.exit for f in node.platform.of(Finished) if f.exit is not Exit.SANDBOX_FAILED] == []


async def test_a_cancelled_attempts_tree_is_gone_within_5_s(node: Node) -> None:
    one = node.script("import os, time\nfor _ in range(20): os.fork()or time.sleep(100)\nprint('go', flush=True)\ntime.sleep(100)")
    await node.platform.want(one)
    await node.platform.until(lambda: any("go" in frame.text for frame in node.platform.of(Log)), 120)
    began = time.monotonic()
    await node.platform.want()
    await node.platform.until(lambda: node.platform.of(Finished), 10)
    assert node.platform.of(Finished)[0].exit is Exit.STOPPED
    assert node.sandboxes() == []
    print(f"cancel to finished: {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 5
