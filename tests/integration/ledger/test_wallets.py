"""Wallets through the service: faucet, history with its closed types, pages, filters."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.escrow.model import Line, Outcome
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Entry, EntryStatus, EntryType, OtherContent
from tests.conftest import Database
from tests.integration.ledger.people import born, person, problems


async def test_an_account_has_a_wallet_per_asset_once(resources: Resources, owner: AsyncConnection) -> None:
    user = await person(owner)
    async with scope(resources) as s:
        await s.ledger.open_wallets(user)
        assert [b.asset for b in await s.ledger.balances(user)] == [Asset.QUBIC, Asset.USDC]
        assert await s.ledger.balances(uuid4()) == ()
        with pytest.raises(NotFound):
            await s.ledger.available(uuid4())


async def test_the_faucet_gives_once_per_key(resources: Resources, owner: AsyncConnection) -> None:
    await born(owner)
    user = await person(owner)
    async with scope(resources) as s:
        assert await s.ledger.network() == "none"
        assert await s.ledger.faucet(user, Qu(50), "k") is True
    async with scope(resources) as s:
        assert await s.ledger.faucet(user, Qu(50), "k") is False
        assert await s.ledger.available(user) == 50
    with pytest.raises(OtherContent):
        async with scope(resources) as s:
            await s.ledger.faucet(user, Qu(51), "k")
    for amount, key in ((0, "z"), (-5, "z"), (10**16, "z"), (5, ""), (5, "x" * 201)):
        with pytest.raises(Invalid):
            async with scope(resources) as s:
                await s.ledger.faucet(user, Qu(amount), key)


async def test_history_tells_each_movement_in_its_type_and_pages_without_gap_or_repeat(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    await born(owner)
    payer, payee = await person(owner, money=1000), await person(owner)
    for window_s in (0, 1000):
        job = uuid4()
        async with scope(resources) as s:
            await s.escrow.open_and_fund(job, payer, Qu(100))
        async with scope(controller_resources) as s:
            await s.escrow.settle(job, Outcome.COMPLETED, [Line("a", payee, Qu(60), 1000)], window_s=window_s)
    async with scope(controller_resources) as s:
        assert await s.escrow.mature_due() == 1
    async with scope(resources) as s:
        paid = (await s.ledger.history(payer)).items
        got = (await s.ledger.history(payee)).items
        assert sorted(e.type for e in paid) == sorted(
            [EntryType.DEPOSIT] + 2 * [EntryType.ESCROW_LOCK, EntryType.RELEASE, EntryType.REFUND]
        )
        assert sum(e.change for e in paid) == (await s.ledger.available(payer)) == 880
        assert [(e.type, e.status, e.amount, e.change) for e in sorted(got, key=lambda e: e.status)] == [
            (EntryType.EARNING, EntryStatus.COMPLETED, 60, 60),
            (EntryType.EARNING, EntryStatus.PENDING, 60, 0),
        ]
        pages: list[Entry] = []
        cursor = None
        while True:
            page = await s.ledger.history(payer, cursor=cursor, limit=2)
            pages += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert pages == list(paid)
        only = await s.ledger.history(payer, types=[EntryType.REFUND, EntryType.DEPOSIT])
        assert {e.type for e in only.items} == {EntryType.REFUND, EntryType.DEPOSIT}
        assert len(only.items) == 3
        now = dt.datetime.now(dt.UTC)
        assert (await s.ledger.history(payer, since=now + dt.timedelta(days=1))).items == ()
        assert (await s.ledger.history(payer, until=now - dt.timedelta(days=1))).items == ()
        assert (await s.ledger.history(payer, asset=Asset.USDC)).items == ()
        for limit, bad in ((0, None), (101, None), (5, "nonsense")):
            with pytest.raises(Invalid):
                await s.ledger.history(payer, limit=limit, cursor=bad)
    assert await problems(owner) == []


async def test_the_fee_goes_to_the_platform_and_is_told(database: Database, resources: Resources, owner: AsyncConnection) -> None:
    await born(owner)
    controller_resources = database.resources("qubix_controller", fee_bps=250)
    payer, payee, job = await person(owner, money=1000), await person(owner), uuid4()
    async with scope(resources) as s:
        await s.escrow.open_and_fund(job, payer, Qu(1000))
    async with scope(controller_resources) as s:
        await s.escrow.settle(job, Outcome.COMPLETED, [Line("a", payee, Qu(999), 1000)], window_s=0)
    async with scope(controller_resources) as s:
        await s.escrow.mature_due()
    await controller_resources.close()
    async with scope(resources) as s:
        told = {(e.type, e.amount, e.change) for e in (await s.ledger.history(payee)).items}
        assert told == {(EntryType.EARNING, 975, 975), (EntryType.FEE, 24, 0)}
        assert (await s.escrow.earnings(payee))[0].total == 975
    assert await problems(owner) == []
