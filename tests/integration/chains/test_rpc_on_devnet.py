"""The rules of chain money on what the client sees of the devnet, over a real socket, while the devnet misbehaves."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import Accepted, Ambiguous, ArchivedTransaction
from qubix.chains.qubic.errors import RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.clock import SystemClock
from qubix.treasury.receiving import Credit, Doubt, Doubtful, Judgement, Scan, SecondProof, after_skip, judge, next_scan, payments_in
from qubix.treasury.sending import (
    Cause,
    Counters,
    Dead,
    Moved,
    Observed,
    Outgoing,
    Pending,
    Settled,
    Sighting,
    Sign,
    Signed,
    Unknown,
    Verdict,
    plan,
    verdict,
)
from tests.integration.chains.devnet_process import Devnet, Person

HOUSE, PAYEE, PAYER = Person(900), Person(901), Person(902)
FUNDED = (HOUSE, PAYER)
PAST = 30
"""Enough steps to bring a payment's tick, three more, and the archive's lag behind us."""


@pytest.fixture
async def rpc(devnet: Devnet) -> AsyncIterator[QubicRpc]:
    limits = RpcLimits(requests_per_s=1000, burst=1000, timeout_s=1, rounds_max=3, backoff_min_s=0.01, backoff_max_s=0.05)
    async with QubicRpc(Wire([devnet.url, devnet.url + "/b"], clock=SystemClock(), limits=limits)) as client:
        yield client


async def sign(rpc: QubicRpc, amount: int, payload: bytes = b"intent") -> tuple[Transaction, Signed]:
    """A payment of the house as it is stored before it is sent."""
    planned = plan(await rpc.tick_info(), dt.datetime.now(dt.UTC), None, weekly=False)
    assert isinstance(planned, Sign)
    wallet = await rpc.balance(HOUSE.identity, max_age_s=0)
    made = HOUSE.pays(PAYEE.key, amount, planned.tick, payload=payload)
    before = Counters(wallet.outgoing_transfers, wallet.outgoing_amount)
    return made, Signed(made.id, HOUSE.identity, PAYEE.identity, amount, planned.tick, before, payload=payload)


async def observe(rpc: QubicRpc, signed: Signed) -> Observed:
    """One look at everything, by each endpoint for itself; what is not answered is not seen."""
    head, processed = await rpc.tick_info(), await rpc.last_processed()
    seen = Observed(head.tick, processed.tick, await rpc.tick_intervals(), endpoints=len(rpc.endpoints))
    for base in rpc.endpoints:
        with contextlib.suppress(RpcUnavailable, TickNotYetProcessed):
            seen = await _witness(rpc.pinned(base), base, signed, seen)
    return seen


async def _witness(pin: QubicRpc, base: str, signed: Signed, seen: Observed) -> Observed:
    processed = await pin.last_processed()
    look = Sighting(base, dt.datetime.now(dt.UTC), processed.tick, await pin.transaction(signed.tx_id))
    try:
        ticked = await pin.tick_data(signed.tick)
        look = replace(look, listed=await pin.transactions_of_tick(signed.tick), hashes=ticked.transaction_ids if ticked else None)
    except TickSkipped:
        look = replace(look, skipped=True)
    moved, wallet = await pin.transfers(signed.tx_id), await pin.balance(signed.source, max_age_s=0)
    return replace(
        seen,
        sightings=(*seen.sightings, look),
        outgoing=(*seen.outgoing, Outgoing(base, wallet.valid_for_tick, Counters(wallet.outgoing_transfers, wallet.outgoing_amount))),
        moved=(*seen.moved, Moved(base, processed.log_tick, moved.transfers, moved.complete)),
    )


async def judged(rpc: QubicRpc, signed: Signed) -> Verdict:
    return verdict(signed, await observe(rpc, signed))


async def test_a_payment_is_pending_until_the_archive_is_three_ticks_past_and_then_settled(devnet: Devnet, rpc: QubicRpc) -> None:
    made, signed = await sign(rpc, 100)
    assert isinstance(await rpc.broadcast(made.to_bytes()), Accepted)
    devnet.step(20 + 3 + 2)
    assert isinstance(await judged(rpc, signed), Pending)
    devnet.step()
    assert isinstance(found := await judged(rpc, signed), Settled)
    assert found.tick == signed.tick


async def test_a_broadcast_without_an_answer_was_taken_and_the_second_one_changes_nothing(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="ambiguous", next=2, answer="cut")
    made, signed = await sign(rpc, 101)
    assert isinstance(await rpc.broadcast(made.to_bytes()), Ambiguous)
    assert isinstance(await rpc.broadcast(made.to_bytes()), Accepted)
    devnet.step(PAST)
    assert isinstance(await judged(rpc, signed), Settled)


async def test_a_dropped_payment_is_dead_by_both_endpoints_and_is_then_paid_once(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="drop", next=1)
    before = int(devnet.balance(PAYEE)["balance"])
    made, signed = await sign(rpc, 102)
    assert isinstance(await rpc.broadcast(made.to_bytes()), Accepted)
    devnet.step(PAST)
    assert isinstance(found := await judged(rpc, signed), Dead)
    assert found.cause is Cause.NEVER_EXECUTED
    again, signed = await sign(rpc, 102)
    await rpc.broadcast(again.to_bytes())
    devnet.step(PAST)
    assert isinstance(await judged(rpc, signed), Settled)
    assert int(devnet.balance(PAYEE)["balance"]) == before + 102


@pytest.mark.parametrize("order", ["/skip", "/epoch"])
async def test_a_payment_whose_tick_the_network_jumped_over_is_dead(devnet: Devnet, rpc: QubicRpc, order: str) -> None:
    made, signed = await sign(rpc, 103)
    await rpc.broadcast(made.to_bytes())
    devnet.order(order, ticks=1_000)
    devnet.step(PAST)
    assert isinstance(found := await judged(rpc, signed), Dead)
    assert found.cause is Cause.TICK_SKIPPED


async def test_a_payment_that_the_wallet_could_not_cover_is_dead_without_effect(devnet: Devnet, rpc: QubicRpc) -> None:
    made, signed = await sign(rpc, 900_000_000)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    assert isinstance(found := await judged(rpc, signed), Dead)
    assert found.cause is Cause.NOT_FLOWN


@pytest.mark.parametrize("mode", ["false", "missing"])
async def test_a_wrong_flown_bit_over_a_payment_leaves_it_to_a_person(devnet: Devnet, rpc: QubicRpc, mode: str) -> None:
    devnet.order("/faults", kind="money_flew", mode=mode)
    made, signed = await sign(rpc, 104)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    assert isinstance(await judged(rpc, signed), Unknown)
    devnet.order("/faults/clear")
    assert isinstance(await judged(rpc, signed), Settled)


async def test_one_archive_that_denies_a_payment_does_not_kill_it(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="forget", door="a")
    made, signed = await sign(rpc, 105)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    assert isinstance(await judged(rpc, signed), Unknown)


async def test_two_archives_that_deny_a_payment_do_not_kill_it_for_the_money_has_left(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="forget")
    made, signed = await sign(rpc, 106)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    assert isinstance(found := await judged(rpc, signed), Unknown)
    assert found.halt


async def test_an_endpoint_that_is_behind_or_away_proves_nothing(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="drop", next=1)
    made, signed = await sign(rpc, 107)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    devnet.order("/faults", kind="stale", ticks=20, door="b")
    assert not isinstance(await judged(rpc, signed), Dead)
    devnet.order("/faults/clear")
    devnet.order("/faults", kind="unreachable", door="b")
    assert not isinstance(await judged(rpc, signed), Dead)


async def scan(rpc: QubicRpc, cursor: int) -> tuple[int, list[Judgement]]:
    """Read all final ticks after the cursor, as the treasury's loop will."""
    found: list[Judgement] = []
    processed = await rpc.last_processed()
    while isinstance(step := next_scan(cursor, processed.tick), Scan):
        try:
            listed = await rpc.transactions_of_tick(step.tick)
        except TickSkipped as skipped:
            after = after_skip(step.tick, skipped.next_tick, await rpc.tick_intervals())
            assert not isinstance(after, Doubt)
            cursor = after
            continue
        found += judge(
            payments := payments_in(listed, {PAYEE.identity}), await _second(rpc, processed.log_tick, [p.tx_id for p in payments])
        )
        cursor = step.tick
    return cursor, found


async def _second(rpc: QubicRpc, log_tick: int, tx_ids: list[str]) -> SecondProof:
    return SecondProof(log_tick, {tx_id: await rpc.transfers(tx_id) for tx_id in tx_ids}, {}, {})


async def test_deposits_are_credited_once_over_skips_and_rows_that_come_twice(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="duplicate")
    cursor = (await rpc.last_processed()).tick
    fee = await rpc.send_many_fee()
    tick = devnet.tick + 5
    direct = PAYER.pays(PAYEE.key, 40, tick, payload=b"qubix:job:1")
    many = qutil.send_many(PAYER.key, [(PAYEE.key, 7), (HOUSE.key, 1), (PAYEE.key, 7)], tick=tick, fee=fee).signed_by(PAYER.subseed)
    unpaid = qutil.send_many(PAYER.key, [(PAYEE.key, 9)], tick=tick, fee=fee + 1).signed_by(PAYER.subseed)
    for made in (direct, many, unpaid):
        await rpc.broadcast(made.to_bytes())
    devnet.step(8)
    devnet.order("/skip", ticks=500)
    devnet.step(PAST)
    cursor, found = await scan(rpc, cursor)
    credits = [(seen.payment.key, seen.payment.amount) for seen in found if isinstance(seen, Credit)]
    assert sorted(credits) == sorted([((direct.id, 0), 40), ((many.id, 0), 7), ((many.id, 2), 7)])
    # The contract gave the wrong sum back, whatever the archive's bit says of the transaction.
    assert {seen.payment.tx_id for seen in found if not isinstance(seen, Credit)} <= {unpaid.id}
    assert cursor == (await rpc.last_processed()).tick - 3


async def test_a_deposit_that_the_archive_invents_the_flight_of_is_not_credited(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.order("/faults", kind="money_flew", mode="inverted")
    cursor = (await rpc.last_processed()).tick
    tick = devnet.tick + 5
    poor, rich = PAYER.pays(PAYEE.key, 900_000_000, tick), PAYER.pays(PAYEE.key, 41, tick)
    for made in (poor, rich):
        await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    _, found = await scan(rpc, cursor)
    assert [type(seen) for seen in found] == [Doubtful, Doubtful]
    assert {seen.payment.tx_id for seen in found} == {poor.id, rich.id}


async def test_an_archived_transaction_is_the_one_that_was_signed(devnet: Devnet, rpc: QubicRpc) -> None:
    made = PAYER.pays(PAYEE.key, 42, devnet.tick + 5, payload=b"x" * 880)
    await rpc.broadcast(made.to_bytes())
    devnet.step(PAST)
    found = await rpc.transaction(made.id)
    assert isinstance(found, ArchivedTransaction)
    assert found.is_genuine()
    assert (found.source, found.destination) == (PAYER.identity, identity.encode(PAYEE.key))
