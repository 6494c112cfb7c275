"""The controller's loops as they run: woken by the web layer, one leader, a node kept for the job that waits longest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix import controller as controllers
from qubix.bootstrap import Resources, scope
from qubix.controller import Controller
from qubix.escrow.model import EarningState, EscrowState
from qubix.jobs.model import JobState
from qubix.kernel.errors import Conflict
from qubix.kernel.events import Event, EventType
from qubix.kernel.money import Qu
from qubix.market.model import Needs
from qubix.postgres.leader import NotLeader
from tests.conftest import Database
from tests.fakes.voices import Voice, age, consumer, controller, look, problems, submit, voice
from tests.integration.escrow.test_disputes import locked, settle
from tests.integration.ledger.people import born, person


@asynccontextmanager
async def working(resources: Resources) -> AsyncIterator[asyncio.Task[None]]:
    """A controller at work."""
    task = asyncio.create_task(Controller(resources, holder="loop").run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NotLeader):
            await task


async def test_p_b37_a06_a_funded_job_reaches_an_idle_node_at_once(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    wakes = resources.listen("nodes", idle_s=5)
    async with working(controller_resources):
        await wakes._ensure()
        began = time.monotonic()
        job = await submit(resources, user)
        while str(node.node_id) not in await wakes.__anext__():
            assert time.monotonic() - began < 20
        (attempt,) = await node.desired()
        assert time.monotonic() - began < 20
        events = resources.listen("events", idle_s=1)
        await events._ensure()
        await node.start(attempt)
        await node.finished(attempt)
        async with asyncio.timeout(30):
            while (await look(resources, job)).state is not JobState.COMPLETED:
                await events.__anext__()
        await events.close()
    await wakes.close()
    assert await problems(owner) == []


async def test_a_controller_stops_though_one_of_its_loops_misses_the_cancellation(controller_resources: Resources) -> None:
    class Stubborn(Controller):
        async def market(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = asyncio.create_task(Stubborn(controller_resources).run())
    async with asyncio.timeout(10):
        while not await _epoch(controller_resources):
            pass
    task.cancel()
    _, alive = await asyncio.wait([task], timeout=5)
    assert not alive


@pytest.mark.parametrize("trouble", ["refused", "raises", "hangs"])
async def test_money_that_cannot_mature_holds_up_no_ruling(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    class Troubled(Controller):
        async def _mature(self) -> None:
            if trouble == "raises":
                raise KeyError("a mistake in the code")
            if trouble == "hangs":
                await asyncio.Event().wait()
            await super()._mature()

    monkeypatch.setattr(controllers, "PART_MAX_S", 1.0)
    await born(owner)
    payer, payee, arbiter = await person(owner, money=200), await person(owner), await person(owner, roles=("arbiter",))
    due, ruled = await locked(resources, payer, 100), await locked(resources, payer, 100)
    await settle(controller_resources, due, payee, 80, window_s=0)
    await settle(controller_resources, ruled, payee, 80)
    async with scope(resources) as s:
        await s.escrow.dispute(ruled, payer, "half of it is missing")
    async with scope(resources) as s:
        await s.escrow.rule(ruled, arbiter, Qu(30), "half of it is")
    await owner.execute(sa.text("REVOKE ALL ON FUNCTION mature FROM qubix_controller"))
    control = Troubled(controller_resources)
    await control.lead()
    await control.money()
    async with scope(resources) as s:
        states = [(await s.escrow.get(job, payee))[1][0].state for job in (due, ruled)]
    assert states == [EarningState.PENDING, EarningState.SPLIT]


async def test_a_ruling_that_cannot_be_carried_out_holds_up_no_other(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee, arbiter = await person(owner, money=200), await person(owner), await person(owner, roles=("arbiter",))
    jobs = [await locked(resources, payer, 100) for _ in range(2)]
    for job in jobs:
        async with scope(resources) as s:
            await s.escrow.dispute(job, payer, "it mines coins")
        await settle(controller_resources, job, payee, 80)
        async with scope(resources) as s:
            await s.escrow.rule(job, arbiter, Qu(0), "it does")
    too_much = sa.text("UPDATE escrows SET proposal = jsonb_set(proposal, '{lines,0,gross}', '101') WHERE id = :id")
    await owner.execute(too_much, {"id": jobs[0]})
    control = await controller(controller_resources)
    await control.money()
    async with scope(resources) as s:
        assert [(await s.escrow.get(job, payer))[0].state for job in jobs] == [EscrowState.DISPUTED, EscrowState.REFUNDED]


async def test_housekeeping_that_fails_at_one_thing_does_the_others(controller_resources: Resources, owner: AsyncConnection) -> None:
    control = await controller(controller_resources)
    async with scope(controller_resources) as s:
        for n in range(2):
            s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, ("marketplace",), uuid4(), {"n": n}))
    await control.publish()
    await owner.execute(sa.text("UPDATE events SET created_at = created_at - interval '8 days'"))
    await owner.execute(sa.text("REVOKE ALL ON sessions FROM qubix_controller"))
    await control.keep_house()
    assert await owner.scalar(sa.text("SELECT count(*) FROM events")) == 1


async def test_a_part_that_finds_another_leader_ends_the_controller(controller_resources: Resources) -> None:
    first = await controller(controller_resources)
    await controller(controller_resources)
    for loop in (first.money, first.market, first.keep_house):
        with pytest.raises(NotLeader):
            await loop()


async def test_the_older_controller_stops_when_another_begins(controller_resources: Resources, database: Database) -> None:
    second = database.resources("qubix_controller")
    async with working(controller_resources) as first:
        async with asyncio.timeout(10):
            while not await _epoch(controller_resources):
                pass
            await controller(second)
            with pytest.raises(NotLeader):
                await first
    await second.close()


async def _epoch(resources: Resources) -> int:
    async with scope(resources) as s:
        return int(await s.connection.scalar(sa.text("SELECT coalesce(max(epoch), 0) FROM leaders")) or 0)


async def test_small_jobs_do_not_starve_a_large_one(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources, gpus=2)
    control = await controller(controller_resources)
    first = await submit(resources, user)
    await control.step()
    (running,) = await node.desired()
    await node.start(running)
    large = await submit(resources, user, needs={"gpus": 2}, price_max=3600)
    await control.step()
    waits = await look(resources, large)
    assert waits.unplaceable is not None
    assert waits.unplaceable["reserve_node_id"] == str(node.node_id)
    small = await submit(resources, user, price_max=3600)
    await control.step()
    assert (await look(resources, small)).state is JobState.PENDING, "the free device is kept for the large job"
    async with scope(resources) as s:
        with pytest.raises(Conflict):
            await s.market.quote(user, Needs(), duration_max_s=60)
    await node.finished(running)
    await control.step()
    assert (await look(resources, first)).state is JobState.COMPLETED
    assert (await look(resources, large)).state is JobState.ASSIGNED
    (whole,) = await node.desired()
    assert len(whole.devices) == 2


async def test_a_draining_paused_or_silent_node_gets_nothing_new_and_keeps_what_it_runs(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources, gpus=2)
    control = await controller(controller_resources)
    await submit(resources, user)
    await control.step()
    (running,) = await node.desired()
    await node.start(running)
    for change, undo in (
        ("draining = true", "draining = false"),
        ("paused = true", "paused = false"),
        ("last_status_at = last_status_at - interval '61 s'", "last_status_at = clock_timestamp()"),
        ("metrics_at = metrics_at - interval '61 s'", "metrics_at = clock_timestamp()"),
        ("socket_open = false", "socket_open = true"),
        ('sandbox = \'{"ok": "no", "reason": "no namespaces"}\'', 'sandbox = \'{"ok": "yes"}\''),
    ):
        await owner.execute(sa.text(f"UPDATE nodes SET {change}".replace(": ", r"\: ")))
        job = await submit(resources, user, price_max=3600)
        await control.step()
        waits = await look(resources, job)
        assert (waits.state, [one.id for one in await node.desired()]) == (JobState.PENDING, [running.id]), change
        assert waits.unplaceable is not None
        assert waits.unplaceable["code"] == "online"
        async with scope(resources) as s:
            await s.jobs.cancel(user, job.id)
        await control.step()
        await owner.execute(sa.text(f"UPDATE nodes SET {undo}".replace(": ", r"\: ")))


async def test_a_price_change_touches_no_job_that_runs(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    control = await controller(controller_resources)
    job = await submit(resources, user)
    await control.step()
    (attempt,) = await node.desired()
    await node.start(attempt)
    async with scope(resources) as s:
        await s.market.set_price(node.owner_id, node.node_id, 9999)
    await age(owner, 10)
    await node.finished(attempt)
    await control.step()
    async with scope(resources) as s:
        receipt = await s.jobs.receipt(user, job.id)
    assert receipt.attempts[0].rate == 3600
    assert 10 <= receipt.charged <= 12


async def test_ten_jobs_on_one_device_run_one_after_the_other(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    control = await controller(controller_resources)
    jobs = [await submit(resources, user, price_max=3600, duration_max_s=60) for _ in range(10)]
    done: list[object] = []
    for _ in jobs:
        await control.step()
        (attempt,) = await node.desired()
        await node.start(attempt)
        await node.finished(attempt)
        done.append(attempt.id)
    await control.step()
    assert [(await look(resources, job)).state for job in jobs] == [JobState.COMPLETED] * 10
    assert len(set(done)) == 10
    assert await problems(owner) == []


async def test_thirty_jobs_on_four_nodes_run_at_once_beside_a_working_controller(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    users = [await consumer(resources, owner) for _ in range(3)]
    nodes = [await voice(resources, gpus=2) for _ in range(4)]

    async def agent(node: Voice) -> None:
        wakes = resources.listen("nodes", idle_s=0.2)
        try:
            async for _ in wakes:
                for attempt in await node.desired():
                    await node.start(attempt)
                    await node.log(attempt, "line\n")
                    await node.status(attempt)
                    await node.finished(attempt, log_ends={"out": 5})
        finally:
            await wakes.close()

    async with working(controller_resources):
        agents = [asyncio.create_task(agent(node)) for node in nodes]
        jobs = await asyncio.gather(*(submit(resources, users[n % 3], price_max=3600, duration_max_s=60) for n in range(30)))
        events = resources.listen("events", idle_s=1)
        async with asyncio.timeout(120):
            while await owner.scalar(sa.text("SELECT count(*) FROM jobs WHERE ended_at IS NULL")):
                await events.__anext__()
        for task in agents:
            task.cancel()
        ended = await asyncio.gather(*agents, return_exceptions=True)
        await events.close()
    assert [error for error in ended if not isinstance(error, asyncio.CancelledError)] == []
    assert {(await look(resources, job)).state for job in jobs} == {JobState.COMPLETED}
    assert await problems(owner) == []
