"""The relay as a real actor, pinned to the head."""

from __future__ import annotations

import asyncio

import pytest

from qubix.fabric.hub import RayRelay
from qubix.kernel.events import EventType
from qubix.live.hub import Volatile
from tests.fakes.ray_world import RayWorld

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

MESSAGE = Volatile(EventType.JOB_LOG, ("job:1",), "log:1/out", {"text": "hi"}, 1.0)


async def test_messages_cross_the_relay_and_survive_its_handles(ray_world: RayWorld) -> None:
    one, other = RayRelay(), RayRelay()
    cursor, _ = await other.pull(-1, 0)
    waiting = asyncio.ensure_future(other.pull(cursor, 5))
    await asyncio.sleep(0.1)
    await one.push("a", [MESSAGE])
    assert await waiting == (cursor + 1, [("a", (MESSAGE,))])
    assert (await RayRelay().recent("job:1"))[-1] == MESSAGE
