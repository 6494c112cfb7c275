"""Disputes and rulings through the services, the way the product runs them; events; who may look."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.escrow.model import EarningState, Escrow, EscrowState, Line, Outcome
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.money import Qu
from qubix.ledger.model import WrongState
from tests.integration.ledger.people import born, person, posted, problems


async def locked(resources: Resources, payer: UUID, amount: int) -> UUID:
    job = uuid4()
    async with scope(resources) as s:
        await s.escrow.open_and_fund(job, payer, Qu(amount))
    return job


async def settle(resources: Resources, job: UUID, payee: UUID, gross: int, *, window_s: float = 1000) -> Escrow:
    async with scope(resources) as s:
        return await s.escrow.settle(job, Outcome.COMPLETED, [Line("a", payee, Qu(gross), 60_000)], window_s=window_s)


async def events(owner: AsyncConnection, topic: str) -> list[tuple[str, dict[str, object]]]:
    rows = await owner.execute(sa.text("SELECT type, payload FROM events WHERE :topic = ANY(topics) ORDER BY id"), {"topic": topic})
    return [(r.type, r.payload if isinstance(r.payload, dict) else json.loads(r.payload)) for r in rows]


async def test_a_frozen_earning_is_split_by_the_arbiter(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee, arbiter = await person(owner, money=100), await person(owner), await person(owner, roles=("arbiter",))
    job = await locked(resources, payer, 100)
    await settle(controller_resources, job, payee, 80)
    async with scope(resources) as s:
        await s.escrow.dispute(job, payer, "half of the images are black")
        assert [g.state for g in (await s.escrow.get(job, payee))[1]] == [EarningState.FROZEN]
    async with scope(controller_resources) as s:
        assert (await s.escrow.frozen_due(), await s.escrow.mature_due()) == ([], 0)
    async with scope(resources) as s:
        await s.escrow.rule(job, arbiter, Qu(30), "half of them are")
    async with scope(controller_resources) as s:
        (earning,) = await s.escrow.frozen_due()
        assert await s.escrow.resolve(earning)
    async with scope(controller_resources) as s:
        assert await s.escrow.frozen_due() == []
        assert not await s.escrow.resolve(earning)
    assert (await posted(owner, payer), await posted(owner, payee)) == (70, 30)
    told = [payload["state"] for kind, payload in await events(owner, f"earnings:{payee}") if kind == "EARNINGS_UPDATE"]
    assert told == ["PENDING", "FROZEN", "SPLIT"]
    assert [payload["change"] for _, payload in await events(owner, f"wallet:{payer}")] == [-100, 20, 50]
    assert [payload["change"] for _, payload in await events(owner, f"wallet:{payee}")] == [30]
    assert [payload["state"] for _, payload in await events(owner, f"escrow:{job}")] == ["LOCKED", "RELEASED", "RELEASED", "RELEASED"]
    assert await problems(owner) == []


async def test_a_disputed_running_job_waits_for_the_arbiter_and_then_settles_by_itself(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee, arbiter = await person(owner, money=100), await person(owner), await person(owner, roles=("arbiter",))
    job = await locked(resources, payer, 100)
    async with scope(resources) as s:
        assert (await s.escrow.dispute(job, payer, "it mines coins")).state is EscrowState.DISPUTED
    waiting = await settle(controller_resources, job, payee, 80)
    assert waiting.state is EscrowState.DISPUTED
    async with scope(controller_resources) as s:
        assert await s.escrow.ruled_due() == []
        assert not await s.escrow.settle_ruled(job)
    async with scope(resources) as s:
        await s.escrow.rule(job, arbiter, Qu(0), "it does")
    async with scope(controller_resources) as s:
        assert await s.escrow.ruled_due() == [job]
        assert await s.escrow.settle_ruled(job)
    async with scope(resources) as s:
        ended, _ = await s.escrow.get(job, payer)
    assert (ended.state, ended.paid, ended.refunded) == (EscrowState.REFUNDED, 0, 100)
    assert await problems(owner) == []


async def test_only_the_payer_disputes_and_only_parties_look(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee, stranger = await person(owner, money=100), await person(owner), await person(owner)
    job = await locked(resources, payer, 100)
    await settle(controller_resources, job, payee, 80)
    for who in (payee, stranger):
        with pytest.raises(NotFound):
            async with scope(resources) as s:
                await s.escrow.dispute(job, who, "mine")
    async with scope(resources) as s:
        with pytest.raises(NotFound):
            await s.escrow.get(job, stranger)
        assert (await s.escrow.get(job, stranger, oversees=True))[0].id == job
        assert (await s.escrow.get(job, payee))[0].id == job
    with pytest.raises(Invalid):
        async with scope(resources) as s:
            await s.escrow.dispute(job, payer, "  ")
    with pytest.raises(NotFound):
        async with scope(resources) as s:
            await s.escrow.rule(job, stranger, Qu(1), "I am no arbiter")


async def test_an_unfunded_escrow_closes_with_nothing_and_a_funded_one_does_not(resources: Resources, owner: AsyncConnection) -> None:
    await born(owner)
    payer, empty = await person(owner, money=100), uuid4()
    async with scope(resources) as s:
        await s.escrow.open_pending(empty, payer)
    async with scope(resources) as s:
        closed = await s.escrow.cancel_pending(empty)
    assert (closed.state, closed.funded) == (EscrowState.REFUNDED, 0)
    job = await locked(resources, payer, 10)
    with pytest.raises(WrongState):
        async with scope(resources) as s:
            await s.escrow.cancel_pending(job)
    with pytest.raises(WrongState):
        async with scope(resources) as s:
            await s.escrow.top_up(empty, 2, Qu(1))
    async with scope(resources) as s:
        assert (await s.escrow.top_up(job, 2, Qu(5))).funded == 15
        assert (await s.escrow.top_up(job, 2, Qu(5))).funded == 15
    assert await posted(owner, payer) == 85
    assert await problems(owner) == []


async def test_average_hourly_rate_counts_the_hours_that_earned_nothing(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee = await person(owner, money=10_000), await person(owner)
    async with scope(resources) as s:
        assert (await s.escrow.earnings(payee))[0].average_per_hour == 0
    for gross in (600, 0):
        job = await locked(resources, payer, 1000)
        async with scope(controller_resources) as s:
            await s.escrow.settle(job, Outcome.FAILED, [Line("a", payee, Qu(gross), 1_800_000)])
    async with scope(resources) as s:
        (summary, _) = await s.escrow.earnings(payee)
        (wallet, _) = await s.ledger.balances(payee)
        (paying, _) = await s.ledger.balances(payer)
    assert (summary.jobs, summary.metered_ms, summary.average_per_hour) == (2, 3_600_000, 600)
    assert (summary.pending, summary.total, wallet.pending_earnings, wallet.available) == (600, 0, 600, 0)
    assert (paying.available, paying.spent) == (9400, 600)
