"""The fabric port's contract: in memory and over a real Ray cluster with real sandboxes, the same promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from qubix.agent.runner import Runner, RunnerDied, RunnerEvent, RunRequest
from qubix.fabric import labels
from qubix.fabric.daemon import Daemon
from qubix.sandbox.events import Ended, Exit, LogText, Started
from qubix.sandbox.spec import SandboxSpec
from qubix.scheduling.fabric import Fabric, FabricNode
from tests.fakes.fabric import FakeFabric, RecordedReports
from tests.fakes.ray_world import RayMachine, RayWorld
from tests.fakes.runner import fake_program

pytestmark = pytest.mark.filterwarnings("default")


class Subject(Protocol):
    """A fabric and what a test may do to its machines."""

    @property
    def fabric(self) -> Fabric: ...
    async def machine(self, gpus: int = 1) -> str: ...
    async def kill_machine(self, ray_node_id: str) -> None: ...
    def request(self, ray_node_id: str, kind: str, *devices: int) -> RunRequest: ...
    def kill_runner(self, ray_node_id: str, request: RunRequest) -> None: ...
    def impatient(self, ray_node_id: str) -> Runner: ...


class InMemory:
    """The fake."""

    def __init__(self) -> None:
        self.fabric = FakeFabric()

    async def machine(self, gpus: int = 1) -> str:
        return self.fabric.add_node(labels.NodeLabels("p1", f"w-{uuid4().hex[:6]}", "eu-central", "standard", "RTX_4090", 24).build(), gpus)

    async def kill_machine(self, ray_node_id: str) -> None:
        self.fabric.kill_node(ray_node_id)

    def request(self, ray_node_id: str, kind: str, *devices: int) -> RunRequest:
        spec = SandboxSpec(uuid4(), Path("/nowhere"), Path("/nowhere"), fake_program(kind), limit_ms=60_000)
        return RunRequest(spec, tuple((f"g{d}", Path("/nowhere")) for d in devices))

    def kill_runner(self, ray_node_id: str, request: RunRequest) -> None:
        self.fabric.runner(ray_node_id).kill(request.attempt)

    def impatient(self, ray_node_id: str) -> Runner:
        return self.fabric.runner(ray_node_id)


class OverRay:
    """The real one."""

    def __init__(self, world: RayWorld) -> None:
        from qubix.fabric.ray_fabric import RayFabric

        self._impatient = RayFabric(start_timeout_s=4.0)
        self.world, self.fabric = world, RayFabric(start_timeout_s=60.0)
        self._machines: dict[str, RayMachine] = {}

    async def machine(self, gpus: int = 1) -> str:
        made = await asyncio.to_thread(self.world.add, gpus=gpus)
        self._machines[made.ray_node_id] = made
        return made.ray_node_id

    async def kill_machine(self, ray_node_id: str) -> None:
        self._machines[ray_node_id].kill()

    def request(self, ray_node_id: str, kind: str, *devices: int) -> RunRequest:
        return self.world.request(self._machines[ray_node_id], kind, *devices)

    def kill_runner(self, ray_node_id: str, request: RunRequest) -> None:
        self.world.kill_runner()

    def impatient(self, ray_node_id: str) -> Runner:
        """One that soon gives up, for what cannot start."""
        return self._impatient.runner(ray_node_id)

    async def close(self) -> None:
        for ray_node_id, made in self._machines.items():
            await self.fabric.stop_agent(ray_node_id)
            await asyncio.to_thread(made.node.stop, 1.0)


@pytest.fixture(params=["memory", pytest.param("ray", marks=[pytest.mark.cluster, pytest.mark.sandbox])])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        yield InMemory()
        return
    over_ray = OverRay(request.getfixturevalue("ray_world"))
    yield over_ray
    await over_ray.close()


async def node_of(subject: Subject, ray_node_id: str) -> FabricNode:
    return next(n for n in await subject.fabric.nodes() if n.ray_node_id == ray_node_id)


async def until_dead(daemon: Daemon, reports: RecordedReports, ray_node_id: str) -> None:
    async with asyncio.timeout(60):
        while ray_node_id not in reports.dead:
            await daemon.step()
            await asyncio.sleep(0.05)


class Watched:
    """An attempt's events as they come."""

    def __init__(self, events: AsyncIterator[RunnerEvent]) -> None:
        self.seen: list[RunnerEvent] = []
        self._task = asyncio.ensure_future(self._read(events))

    async def _read(self, events: AsyncIterator[RunnerEvent]) -> None:
        async for event in events:
            self.seen.append(event)

    async def started(self) -> None:
        async with asyncio.timeout(120):
            while not any(isinstance(e, LogText) for e in self.seen):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def all(self) -> list[RunnerEvent]:
        await asyncio.wait_for(self._task, 120)
        return self.seen


async def test_a_node_appears_with_its_labels_and_its_death_is_reported_once(subject: Subject) -> None:
    reports = RecordedReports()
    daemon = Daemon(subject.fabric, reports)
    ray_node_id = await subject.machine()
    node = await node_of(subject, ray_node_id)
    known = labels.parse(node.labels)
    assert known is not None
    assert (known.provider, known.region, known.model, known.vram_gb, node.alive, node.gpus) == (
        "p1",
        "eu-central",
        "RTX_4090",
        24,
        True,
        1,
    )
    await daemon.step()
    assert (known.worker_id, ray_node_id) in reports.seen
    await subject.kill_machine(ray_node_id)
    await until_dead(daemon, reports, ray_node_id)
    for _ in range(3):
        await daemon.step()
    assert reports.dead.count(ray_node_id) == 1
    assert [r for r in reports.seen if r[1] == ray_node_id] == [(known.worker_id, ray_node_id)]


async def test_an_agent_is_started_once_however_often_it_is_asked_for(subject: Subject) -> None:
    ray_node_id = await subject.machine()
    started = await asyncio.gather(*(subject.fabric.ensure_agent(ray_node_id) for _ in range(4)))
    assert sorted(started) == [False, False, False, True]
    assert not await subject.fabric.ensure_agent(ray_node_id)
    assert await subject.fabric.stop_agent(ray_node_id)
    assert not await subject.fabric.stop_agent(ray_node_id)


async def test_an_attempts_events_come_in_order(subject: Subject) -> None:
    ray_node_id = await subject.machine()
    events = [e async for e in subject.fabric.runner(ray_node_id).start(subject.request(ray_node_id, "hello", 0))]
    assert isinstance(events[0], Started)
    assert "".join(e.text for e in events if isinstance(e, LogText) and e.stream == "out") == "go\ndone\n"
    end = events[-1]
    assert isinstance(end, Ended)
    assert (end.exit, end.exit_code) == (Exit.EXITED, 0)
    assert sum(isinstance(e, Ended | RunnerDied) for e in events) == 1


async def test_a_stopped_attempt_is_reported_stopped_once(subject: Subject) -> None:
    ray_node_id = await subject.machine()
    runner, request = subject.fabric.runner(ray_node_id), subject.request(ray_node_id, "sleep", 0)
    watched = Watched(runner.start(request))
    await watched.started()
    await asyncio.gather(runner.stop(request.attempt), runner.stop(request.attempt))
    ends = [e for e in await watched.all() if isinstance(e, Ended | RunnerDied)]
    assert [e.exit for e in ends if isinstance(e, Ended)] == [Exit.STOPPED]
    await runner.stop(request.attempt)


async def test_a_killed_runner_is_reported_and_its_devices_become_free(subject: Subject) -> None:
    ray_node_id = await subject.machine()
    runner, request = subject.fabric.runner(ray_node_id), subject.request(ray_node_id, "sleep", 0)
    watched = Watched(runner.start(request))
    await watched.started()
    subject.kill_runner(ray_node_id, request)
    assert isinstance((await watched.all())[-1], RunnerDied)
    async with asyncio.timeout(60):
        while True:
            *_, end = [e async for e in runner.start(subject.request(ray_node_id, "hello", 0))]
            assert isinstance(end, Ended)
            if end.exit is not Exit.SANDBOX_FAILED:  # the killed one lets go of its device a moment after the report
                break
            await asyncio.sleep(0.2)
    assert end.exit_code == 0


async def test_gpus_are_counted_and_several_are_given_all_or_none(subject: Subject) -> None:
    ray_node_id = await subject.machine(gpus=2)
    runner, first = subject.fabric.runner(ray_node_id), subject.request(ray_node_id, "sleep", 0)
    watched = Watched(runner.start(first))
    await watched.started()
    both = [e async for e in subject.impatient(ray_node_id).start(subject.request(ray_node_id, "hello", 0, 1))]
    assert [type(e) for e in both] == [RunnerDied]
    one = [e async for e in runner.start(subject.request(ray_node_id, "hello", 1))]
    assert isinstance(one[-1], Ended)
    await runner.stop(first.attempt)
    await watched.all()
    both = [e async for e in runner.start(subject.request(ray_node_id, "hello", 0, 1))]
    assert isinstance(both[-1], Ended)


async def test_an_attempt_for_a_dead_node_is_reported_as_not_run(subject: Subject) -> None:
    ray_node_id = await subject.machine()
    await subject.kill_machine(ray_node_id)
    reports = RecordedReports()
    await until_dead(Daemon(subject.fabric, reports), reports, ray_node_id)
    events = [e async for e in subject.impatient(ray_node_id).start(subject.request(ray_node_id, "hello", 0))]
    assert [type(e) for e in events] == [RunnerDied]
