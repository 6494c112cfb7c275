"""One job's money from the wallet to the provider, through scopes and roles as the product runs them."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.escrow.model import EarningState, EscrowState, Line, Outcome
from qubix.kernel.errors import Unpaid
from qubix.kernel.money import Qu
from qubix.ledger.model import EntryType, OtherContent
from tests.integration.ledger.people import born, person, posted, problems


async def test_a_job_is_paid_from_its_wallet_and_the_rest_comes_home(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee, other = await person(owner, money=1000), await person(owner), await person(owner)
    job = uuid4()
    async with scope(resources) as s:
        locked = await s.escrow.open_and_fund(job, payer, Qu(600))
    assert (locked.state, locked.funded) == (EscrowState.LOCKED, 600)
    async with scope(controller_resources) as s:
        ended = await s.escrow.settle(
            job, Outcome.COMPLETED, [Line("a", payee, Qu(100), 1000), Line("b", other, Qu(300), 3000)], window_s=0
        )
    assert (ended.state, ended.paid, ended.refunded) == (EscrowState.RELEASED, 400, 200)
    async with scope(controller_resources) as s:
        again = await s.escrow.settle(
            job, Outcome.COMPLETED, [Line("b", other, Qu(300), 3000), Line("a", payee, Qu(100), 1000)], window_s=0
        )
        assert again == ended
    with pytest.raises(OtherContent):
        async with scope(controller_resources) as s:
            await s.escrow.settle(job, Outcome.COMPLETED, [Line("a", payee, Qu(101), 1000)], window_s=0)
    async with scope(controller_resources) as s:
        assert await s.escrow.mature_due() == 2
    async with scope(resources) as s:
        _, earnings = await s.escrow.get(job, payer)
        assert [g.state for g in earnings] == [EarningState.PAID, EarningState.PAID]
        history = await s.ledger.history(payer)
        assert [e.escrow_id for e in history.items] == [job, job, job, job, None]
        for earner in (payee, other):
            assert {e.escrow_id for e in (await s.ledger.history(earner)).items} == {job}
        assert [e.type for e in history.items][3:] == [EntryType.ESCROW_LOCK, EntryType.DEPOSIT]
        assert sorted((e.type, e.change) for e in history.items[:3]) == [
            (EntryType.REFUND, 200),
            (EntryType.RELEASE, 0),
            (EntryType.RELEASE, 0),
        ]
        (qubic, _) = await s.ledger.balances(payer)
        assert (qubic.available, qubic.held_in_escrow, qubic.spent) == (600, 0, 400)
        (summary, _) = await s.escrow.earnings(other)
        assert (summary.total, summary.today, summary.pending, summary.average_per_hour) == (300, 300, 0, 360_000)
    assert [await posted(owner, who) for who in (payer, payee, other)] == [600, 100, 300]
    assert await problems(owner) == []


async def test_too_little_money_says_how_much_is_missing_and_makes_nothing(resources: Resources, owner: AsyncConnection) -> None:
    await born(owner)
    payer, job = await person(owner, money=100), uuid4()
    with pytest.raises(Unpaid) as caught:
        async with scope(resources) as s:
            await s.escrow.open_and_fund(job, payer, Qu(250))
    assert caught.value.extra["missing"] == 150
    async with scope(resources) as s:
        assert (await s.ledger.balances(payer))[0].available == 100
    assert await problems(owner) == []
