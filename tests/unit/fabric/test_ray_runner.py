"""What the runner does with an attempt that does not end when it is stopped. (On a real Ray: tests/cluster/test_attempt_host.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from qubix.agent.runner import RunRequest
from qubix.fabric import ray_runner
from qubix.fabric.ray_runner import Host, NotInTime, RayRunner, _Running
from qubix.sandbox.events import Ended, Exit, SandboxEvent
from qubix.sandbox.spec import Program, SandboxSpec

END = Ended(Exit.EXITED, 0, None, "", 1, {})


class Answers:
    """An actor that answers a kill, and freezes before it says the end."""

    @property
    def kill(self) -> Answers:
        return self

    async def remote(self, attempt: UUID) -> None:
        return None


def running(folder: Path) -> _Running:
    spec = SandboxSpec(uuid4(), folder / "base", folder, Program(folder, "main.py", folder), limit_ms=1000)
    return _Running(RunRequest(spec), Host(Answers(), None))


async def said(event: SandboxEvent) -> SandboxEvent:
    return event


async def stream(*events: SandboxEvent, after_s: float) -> AsyncIterator[Awaitable[SandboxEvent]]:
    """A stream of references, as Ray gives them, that never ends."""
    await asyncio.sleep(after_s)
    for event in events:
        yield said(event)
    await asyncio.Event().wait()


async def read(events: Any, into: list[SandboxEvent]) -> None:
    async for event in events:
        into.append(event)


async def test_an_attempt_whose_host_answered_its_kill_and_never_said_its_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runner, "FORCE_AFTER_S", 0.05)
    monkeypatch.setattr(ray_runner, "LAST_WORDS_S", 0.05)
    runner, one = RayRunner("node", start_timeout_s=60.0), running(tmp_path)
    runner._running[one.request.attempt] = one
    waiting = asyncio.ensure_future(read(runner._events(stream(after_s=600), one), []))
    await asyncio.sleep(0)
    await runner.stop(one.request.attempt, 0.0)
    with pytest.raises(NotInTime, match="did not answer"):
        await asyncio.wait_for(waiting, 5)


async def test_the_end_of_an_attempt_that_is_given_up_is_still_heard_if_it_is_on_its_way(tmp_path: Path) -> None:
    runner, one, seen = RayRunner("node"), running(tmp_path), list[SandboxEvent]()
    waiting = asyncio.ensure_future(read(runner._events(stream(END, after_s=0.02), one), seen))
    await asyncio.sleep(0)
    one.give_up()
    with pytest.raises(NotInTime):
        await asyncio.wait_for(waiting, 5)
    assert seen == [END]
