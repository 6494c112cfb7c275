"""The outbox on real PostgreSQL: nothing lost, nothing twice, one order."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.kernel.errors import Conflict
from qubix.kernel.events import Event, EventType
from qubix.postgres import leader, outbox

pytestmark = pytest.mark.postgres


def event(topic: str, number: int = 0, key: str | None = None) -> Event:
    return Event(EventType.JOB_STATUS_CHANGED, (topic,), uuid4(), {"n": number}, key)


async def publish_all(resources: Resources) -> None:
    while True:
        async with resources.engine.begin() as connection:
            if not await outbox.publish(connection):
                return


async def test_events_of_racing_transactions_get_positions_without_gaps_and_none_is_skipped(resources: Resources) -> None:
    async def write(worker: int) -> None:
        for n in range(20):
            async with scope(resources) as s:
                s.outbox.add(event("job:x", worker * 100 + n))
                await asyncio.sleep(0)

    seen: list[int] = []

    async def read_while(done: asyncio.Event) -> None:
        last = 0
        while True:
            finished = done.is_set()
            async with resources.engine.begin() as connection:
                await outbox.publish(connection)
            async with resources.engine.begin() as connection:
                fresh = await outbox.read(connection, ["job:x"], after=last)
            for published in fresh:
                last = published.position
                seen.append(published.payload["n"])
            if finished and not fresh:
                return

    done = asyncio.Event()
    reader = asyncio.create_task(read_while(done))
    await asyncio.gather(*(write(worker) for worker in range(6)))
    done.set()
    await reader
    assert sorted(seen) == sorted(worker * 100 + n for worker in range(6) for n in range(20))


async def test_positions_are_gap_free_and_follow_the_order_of_insertion_within_a_transaction(
    resources: Resources, owner: AsyncConnection
) -> None:
    async with scope(resources) as s:
        for n in range(5):
            s.outbox.add(event("job:x", n))
    await publish_all(resources)
    rows = (await owner.execute(sa.text("SELECT position, payload->>'n' AS n FROM events ORDER BY position"))).all()
    assert [(r.position, int(r.n)) for r in rows] == [(n + 1, n) for n in range(5)]


async def test_an_event_with_a_key_is_told_once(resources: Resources, owner: AsyncConnection) -> None:
    for _ in range(3):
        async with scope(resources) as s:
            s.outbox.add(event("job:x", key="job:x/completed"))
    assert await owner.scalar(sa.text("SELECT count(*) FROM events")) == 1


async def test_an_event_of_a_rolled_back_transaction_is_never_told(resources: Resources, owner: AsyncConnection) -> None:
    with pytest.raises(Conflict):
        async with scope(resources) as s:
            s.outbox.add(event("job:x"))
            raise Conflict("no")
    assert await owner.scalar(sa.text("SELECT count(*) FROM events")) == 0


async def test_a_transaction_of_a_controller_that_leads_no_more_is_refused(controller_resources: Resources) -> None:
    async with scope(controller_resources) as s:
        old = await leader.take(s.connection, "controller", "first")
    async with scope(controller_resources) as s:
        new = await leader.take(s.connection, "controller", "second")
    with pytest.raises(leader.NotLeader):
        async with scope(controller_resources, leads=("controller", old)):
            raise AssertionError("this body must not run")
    async with scope(controller_resources, leads=("controller", new)):
        pass


async def test_a_wake_is_heard_after_the_commit(resources: Resources) -> None:
    listener = resources.listen("nodes", idle_s=5)
    await listener._ensure()
    async with scope(resources) as s:
        s.wake("nodes", "a")
        s.wake("nodes", "b")
    heard: set[str] = set()
    while heard != {"a", "b"}:
        heard |= await anext(listener)
    await listener.close()
