"""The actor that runs a node's attempts, killed at the worst moments: an attempt that had not started never does, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import psutil
import pytest

from qubix.agent.runner import RunnerDied, RunnerEvent, RunRequest
from qubix.fabric.ray_runner import RayRunner
from qubix.sandbox import stop
from qubix.sandbox.events import Started
from tests.fakes.ray_world import RayMachine, RayWorld

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


def members(machine: RayMachine, word: str) -> list[psutil.Process]:
    """The machine's processes with this in their command line."""
    found = []
    for member in machine.node.process.members():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(member.pid)
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found


async def _kill(runner: RayRunner, host: psutil.Process, request: RunRequest) -> None:
    host.kill()


async def _stop(runner: RayRunner, host: psutil.Process, request: RunRequest) -> None:
    await runner.stop(request.attempt)


@pytest.mark.parametrize("end", [_kill, _stop], ids=["its host is killed", "it is stopped"])
async def test_an_attempt_that_never_started_is_known_to_be_gone_and_leaves_nothing(
    ray_world: RayWorld, end: Callable[[RayRunner, psutil.Process, RunRequest], Awaitable[None]]
) -> None:
    machine = ray_world.add()
    runner = RayRunner(machine.ray_node_id, start_timeout_s=60.0)
    await runner.warm()
    (server,), (host,) = members(machine, "fork_server"), members(machine, "AttemptHost")
    server.suspend()  # so it forks nothing
    try:
        request = ray_world.request(machine, "sleep", 0)
        events: list[RunnerEvent] = []

        async def run() -> None:
            async for event in runner.start(request):
                events.append(event)

        running = asyncio.ensure_future(run())
        async with asyncio.timeout(120):
            while runner._running[request.attempt].host is None if request.attempt in runner._running else True:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await end(runner, host, request)
        await asyncio.wait_for(running, 30)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            if end is _kill:
                server.wait(60)  # the kernel ends it with its owner, frozen as it is
            server.resume()
    assert [type(event) for event in events] == [RunnerDied]
    assert isinstance(events[0], RunnerDied)
    assert events[0].gone
    base = machine.home.sandboxes
    assert stop.bury(base, request.attempt, gone=events[0].gone)
    assert list((base / "attempts").iterdir()) == []


async def test_an_attempt_whose_host_is_frozen_ends_when_it_is_stopped(ray_world: RayWorld) -> None:
    machine = ray_world.add()
    runner = RayRunner(machine.ray_node_id)
    await runner.warm()
    (host,) = members(machine, "AttemptHost")
    request = ray_world.request(machine, "sleep", 0)
    events: list[RunnerEvent] = []
    started = asyncio.Event()

    async def run() -> None:
        async for event in runner.start(request):
            events.append(event)
            if isinstance(event, Started):
                started.set()

    running = asyncio.ensure_future(run())
    try:
        await asyncio.wait_for(started.wait(), 30)
        host.suspend()
        await runner.stop(request.attempt, 0.0)
        await asyncio.wait_for(running, 30)
        assert isinstance(events[-1], RunnerDied)
        assert not events[-1].gone
        assert stop.alive(machine.home.sandboxes) == ()
    finally:
        host.resume()


async def test_a_stop_that_comes_as_an_attempt_ends_leaves_nothing(ray_world: RayWorld) -> None:
    machine = ray_world.add()
    runner = RayRunner(machine.ray_node_id)
    stops = []
    for number in range(6):
        request = ray_world.request(machine, "hello", 0)
        async for _ in runner.start(request):
            stops.append(asyncio.ensure_future(runner.stop(request.attempt, 0.0 if number % 2 else 0.1)))
            await asyncio.sleep(number * 0.02)
    await asyncio.gather(*stops)
    assert list((machine.home.sandboxes / "attempts").iterdir()) == []
