"""The RPC's client against the devnet: two implementations that know nothing of each other, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import Accepted, Ambiguous, Refused
from qubix.chains.qubic.errors import TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire
from qubix.kernel.clock import SystemClock
from tests.integration.chains.devnet_process import Devnet, Person

PAYER, PAYEE, OTHER = Person(800), Person(801), Person(802)
FUNDED = (PAYER,)


@pytest.fixture
async def rpc(devnet: Devnet) -> AsyncIterator[QubicRpc]:
    """A client of both doors that does not dawdle."""
    limits = RpcLimits(requests_per_s=1000, burst=1000, timeout_s=2, backoff_min_s=0.01, backoff_max_s=0.05)
    async with QubicRpc(Wire([devnet.url, devnet.url + "/b"], clock=SystemClock(), limits=limits)) as client:
        yield client


async def test_a_payment_from_its_broadcast_to_its_second_proof(devnet: Devnet, rpc: QubicRpc) -> None:
    head = await rpc.tick_info()
    before = await rpc.balance(PAYER.identity)
    signed = PAYER.pays(PAYEE.key, 77, head.tick + 5, payload=b"qubix:job:1")
    assert isinstance(await rpc.broadcast(signed.to_bytes()), Accepted)
    with pytest.raises(TickNotYetProcessed):
        await rpc.transactions_of_tick(signed.tick)
    devnet.step(8)
    assert (await rpc.last_processed()).tick == signed.tick
    found = await rpc.transaction(signed.id)
    assert found is not None
    assert (found.rebuilt(), found.is_genuine(), found.money_flew) == (signed, True, True)
    assert await rpc.transactions_of_tick(signed.tick) == (found,)
    ticked = await rpc.tick_data(signed.tick)
    assert ticked is not None
    assert ticked.transaction_ids == {signed.id}
    proof = await rpc.transfers(signed.id)
    assert proof.complete
    assert [(moved.source, moved.destination, moved.amount) for moved in proof.transfers] == [(PAYER.identity, PAYEE.identity, 77)]
    after = await rpc.balance(PAYER.identity, max_age_s=0)
    assert (after.outgoing_amount - before.outgoing_amount, after.outgoing_transfers - before.outgoing_transfers) == (77, 1)


async def test_a_send_many_with_the_fee_that_the_contract_asks(devnet: Devnet, rpc: QubicRpc) -> None:
    head = await rpc.tick_info()
    fee = await rpc.send_many_fee()
    order = qutil.send_many(PAYER.key, [(PAYEE.key, 5), (OTHER.key, 6)], tick=head.tick + 3, fee=fee).signed_by(PAYER.subseed)
    await rpc.broadcast(order.to_bytes())
    devnet.step(6)
    found = await rpc.transaction(order.id)
    assert found is not None
    assert [payment.amount for payment in qutil.parse_send_many(found.rebuilt()).payments] == [5, 6]
    moved = (await rpc.transfers(order.id)).transfers
    assert {(transfer.destination, transfer.amount) for transfer in moved} == {
        (identity.encode(qutil.ADDRESS), 11 + fee),
        (PAYEE.identity, 5),
        (OTHER.identity, 6),
    }


async def test_skipped_ticks_are_told_as_such(devnet: Devnet, rpc: QubicRpc) -> None:
    head = await rpc.tick_info()
    devnet.order("/skip", ticks=20)
    devnet.step(5)
    with pytest.raises(TickSkipped) as skipped:
        await rpc.transactions_of_tick(head.tick + 3)
    assert skipped.value.extra["next_tick"] == head.tick + 21
    assert not any(head.tick + 3 in interval for interval in await rpc.tick_intervals())


async def test_an_answer_that_never_comes_is_ambiguous_and_a_refusal_is_one(devnet: Devnet, rpc: QubicRpc) -> None:
    head = await rpc.tick_info()
    devnet.order("/faults", kind="ambiguous", next=2, answer="cut")
    signed = PAYER.pays(PAYEE.key, 3, head.tick + 3)
    assert isinstance(await rpc.broadcast(signed.to_bytes()), Ambiguous)
    assert isinstance(await rpc.broadcast(signed.to_bytes()), Accepted)
    devnet.step(4)
    assert isinstance(await rpc.broadcast(signed.to_bytes()), Refused)


async def test_a_stale_or_silent_endpoint_is_passed_over(devnet: Devnet, rpc: QubicRpc) -> None:
    devnet.step(10)
    head = await rpc.tick_info()
    devnet.order("/faults", kind="stale", door="a", ticks=5)
    assert (await rpc.tick_info()).tick == head.tick
    devnet.order("/faults/clear")
    devnet.order("/faults", kind="unreachable", door="a")
    assert (await rpc.tick_info()).tick == head.tick


async def test_of_two_witnesses_one_denies(devnet: Devnet, rpc: QubicRpc) -> None:
    head = await rpc.tick_info()
    signed = PAYER.pays(PAYEE.key, 4, head.tick + 2)
    await rpc.broadcast(signed.to_bytes())
    devnet.step(5)
    devnet.order("/faults", kind="forget", door="b")
    told = [await rpc.pinned(base).transaction(signed.id) for base in rpc.endpoints]
    assert [found is not None for found in told] == [True, False]
    assert (await rpc.pinned(rpc.endpoints[1]).transfers(signed.id)).complete
