"""The signer on the real database and a real network: what it signs, what it leaves alone, and that it never signs twice."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.leader import NotLeader
from qubix.signer import FREE_MAX, FREE_MIN, Signer
from qubix.treasury.seeds import SealedSeed
from qubix.treasury.signing import memo
from qubix.treasury.store import Deposit, TreasuryStore
from tests.integration.chains.devnet_process import Person
from tests.integration.ledger.people import problems
from tests.integration.signer.conftest import World

PAYEES = [Person(number) for number in range(700, 704)]


async def test_addresses_wait_for_users_and_more_are_made_when_they_run_short(world: World) -> None:
    free = "SELECT count(*) FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL"
    assert await world.value(free) == FREE_MIN
    assert [await world.value("SELECT count(*) FROM chain_addresses WHERE purpose = :p", p=purpose) for purpose in ("hot", "house")] == [
        1,
        1,
    ]
    assert await world.signer.keep_addresses() == 0
    for _ in range(3):
        await world.user()
    assert await world.signer.keep_addresses() == 20
    assert FREE_MIN <= await world.value(free) <= FREE_MAX
    assert (
        await world.value("SELECT count(*) FROM chain_addresses a LEFT JOIN signer_keys k USING (identity) WHERE k.identity IS NULL") == 0
    )


async def test_p_b13_a_withdrawal_is_swept_together_signed_once_and_paid(world: World) -> None:
    ann = await world.user(1000)
    hold = await world.withdraws(ann, 600, PAYEES[0].identity)
    assert await world.signer.pay() is None, "the money is still at the deposit address"
    assert await world.signer.sweep() == 1
    [sweep] = await world.payments()
    assert (sweep.kind, sweep.amount, sweep.destination) == ("sweep", 1000, await world.address("hot"))
    assert await world.signer.sweep() == 0, "one unresolved payment per address"
    assert await world.send() == 1
    before, head = world.has(PAYEES[0].identity), world.devnet.tick
    signed = await world.signer.pay()
    assert signed is not None
    [payout] = await world.payments("kind = 'payout'")
    read = Transaction.from_bytes(payout.encoded)
    assert read.verify()
    assert (read.id, read.amount, read.tick) == (payout.tx_id, 600, head + 20)
    assert (identity.encode(read.destination), read.payload) == (PAYEES[0].identity, memo(hold))
    for _ in range(3):
        assert await world.signer.pay() is None, "nothing else is open"
    assert await world.send() == 1
    assert world.has(PAYEES[0].identity) == before + 600
    assert await world.signer.pay() is None
    assert await world.value("SELECT state FROM holds WHERE id = :hold", hold=hold) == "CAPTURED"
    assert await problems(world.owner) == []


async def test_nothing_is_signed_while_a_payment_of_the_paying_address_is_unresolved(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    for number in range(2):
        await world.withdraws(ann, 10 + number, PAYEES[number].identity)
    first = await world.signer.pay()
    assert first is not None
    assert await world.signer.pay() is None
    await world.value("UPDATE payments SET state = 'UNKNOWN' WHERE tx_id = :tx RETURNING 1", tx=first.tx_id)
    assert await world.signer.pay() is None
    [left] = await world.payments("state = 'UNKNOWN'")
    assert await world.value("SELECT payment_ended(:id, false, 'by hand')", id=left.id) == 0
    world.devnet.step(30)
    second = await world.signer.pay()
    assert second is not None
    assert second.holds == first.holds, "proved dead, it is signed for again"
    assert second.tx_id != first.tx_id


async def test_several_withdrawals_go_in_one_transaction_once_the_house_can_pay_its_fee(world: World) -> None:
    ann, bob = await world.user(1000), await world.user(500)
    await world.comes_in(await world.address("house"), 100)
    await world.collected()
    holds = [await world.withdraws(who, 50 + n, PAYEES[n].identity) for n, who in enumerate((ann, bob, ann, bob))]
    before = [world.has(payee.identity) for payee in PAYEES]
    signed = await world.signer.pay()
    assert signed is not None
    assert signed.holds == tuple(holds)
    found = qutil.parse_send_many(Transaction.from_bytes((await world.payments("kind = 'payout'"))[0].encoded))
    assert [payment.amount for payment in found.payments] == [50, 51, 52, 53]
    assert await world.send() == 1
    assert [world.has(payee.identity) for payee in PAYEES] == [had + 50 + n for n, had in enumerate(before)]
    assert await world.value("SELECT posted FROM accounts WHERE kind = 'house' AND asset = 1") == 100 - found.fee
    assert await world.signer.pay() is None
    assert await problems(world.owner) == []


async def test_past_a_ceiling_a_withdrawal_waits_for_a_person_and_the_next_one_goes(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.value("UPDATE signer_limits SET payment_max = 100 RETURNING 1")
    large, small = await world.withdraws(ann, 101, PAYEES[0].identity), await world.withdraws(ann, 100, PAYEES[1].identity)
    signed = await world.signer.pay()
    assert signed is not None
    assert signed.holds == (small,)
    await world.send()
    assert await world.signer.pay() is None
    await world.value("INSERT INTO payout_approvals (hold_id, approved_by) VALUES (:hold, 'a person') RETURNING 1", hold=large)
    signed = await world.signer.pay()
    assert signed is not None
    assert signed.holds == (large,)


async def test_more_withdrawals_past_a_ceiling_than_are_looked_at_block_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.signer.CANDIDATES_MAX", 2)
    ann, bob = await world.user(1000), await world.user(1000)
    await world.collected()
    await world.value("UPDATE signer_limits SET payment_max = 100 RETURNING 1")
    contract = identity.encode(qutil.ADDRESS)
    for amount in (200, 201, 202):
        await world.withdraws(ann, amount, PAYEES[0].identity)
    for amount in (1, 2, 3):
        await world.withdraws(ann, amount, contract)
    good = await world.withdraws(bob, 30, PAYEES[1].identity)
    signed = [await world.signer.pay() for _ in range(3)]
    assert [one.holds for one in signed if one is not None] == [(good,)]


async def test_many_withdrawals_of_one_account_wait_behind_the_first_of_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.signer.CANDIDATES_MAX", 2)
    ann, bob = await world.user(1000), await world.user(1000)
    await world.collected()
    many = [await world.withdraws(ann, 1 + number, PAYEES[0].identity) for number in range(4)]
    good = await world.withdraws(bob, 30, PAYEES[1].identity)
    paid: list[UUID] = []
    for _ in range(3):
        signed = await world.signer.pay()
        assert signed is not None
        paid += signed.holds
        await world.send()
    assert paid == [many[0], good, many[1]]


async def test_so_few_sweeps_are_on_their_way_that_payouts_are_still_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.signer.SWEEPS_AT_ONCE", 2)
    for amount in (1, 1, 1, 900):
        await world.user(amount)
    swept = []
    for _ in range(3):
        world.signer._sweeps_due = 0.0
        swept.append(await world.signer.sweep())
    assert swept == [2, 0, 0]
    assert 900 in [payment.amount for payment in await world.payments()]
    await world.send()
    world.signer._sweeps_due = 0.0
    assert await world.signer.sweep() == 2


# A day's payouts of bob, and then many small withdrawals of ann.
A_BUSY_DAY = """
SET session_replication_role = replica;
INSERT INTO holds (id, account_id, asset, amount, address, state, evidence, ended_at)
  SELECT md5('h' || g)::uuid, {bob}, 1, 1, '{payee}', 'CAPTURED', 'tx', now() FROM generate_series(1, 20000) g;
INSERT INTO payments (id, kind, source, destination, amount, fee, tick, input_type, payload, encoded, tx_id, before_transfers, before_amount, state, ended_at)
  SELECT md5('p' || g)::uuid, 'payout', '{hot}', '{payee}', 20, 0, 1, 0, '', '', 'tx' || g, 0, 0, 'PAID', now() FROM generate_series(1, 1000) g;
INSERT INTO payment_holds (payment_id, place, hold_id)
  SELECT md5('p' || (g - 1) / 20 + 1)::uuid, (g - 1) % 20, md5('h' || g)::uuid FROM generate_series(1, 20000) g;
INSERT INTO holds (id, account_id, asset, amount, address) SELECT gen_random_uuid(), {ann}, 1, 1, '{payee}' FROM generate_series(1, 4000);
SET session_replication_role = origin;
"""


async def test_thousands_of_open_withdrawals_do_not_slow_the_signer_down(world: World) -> None:
    who = {name: await world.user(1000) for name in ("ann", "bob")}
    wallet = "SELECT id FROM accounts WHERE owner_id = :who AND kind = 'wallet' AND asset = 1"
    wallets = {name: await world.value(wallet, who=user) for name, user in who.items()}
    day = A_BUSY_DAY.format(**wallets, hot=await world.address("hot"), payee=PAYEES[0].identity)
    for statement in day.split(";"):
        await world.owner.exec_driver_sql(statement)
    began = time.monotonic()
    async with world.signer._store() as store:
        assert len(await store.candidates(without=(), most=10)) == 10
    assert time.monotonic() - began < 3  # a sum of the day for each of them takes over ten times as long


@pytest.mark.parametrize("address", [identity.encode(identity.NULL), identity.encode(identity.contract(1)), "A" * 60, "nobody"])
async def test_a_withdrawal_to_where_money_is_lost_is_left_alone(world: World, address: str) -> None:
    ann = await world.user(1000)
    await world.collected()
    lost, good = await world.withdraws(ann, 5, address), await world.withdraws(ann, 6, PAYEES[1].identity)
    signed = await world.signer.pay()
    assert signed is not None
    assert signed.holds == (good,)
    await world.send()
    assert await world.signer.pay() is None
    assert await world.value("SELECT state FROM holds WHERE id = :hold", hold=lost) == "OPEN"


async def test_a_withdrawal_of_another_asset_is_never_paid_in_qubic(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    address = str(await world.value("SELECT identity FROM chain_addresses WHERE user_id = :ann", ann=ann))
    store, hold = TreasuryStore(world.owner), uuid4()
    assert await store.deposit([Deposit("usdc", 0, Asset.USDC, Qu(50), address, 1, "by hand", "PAYER")]) == [Code.DONE]
    assert await store.withdraw(hold, ann, Asset.USDC, Qu(50), PAYEES[0].identity) is Code.DONE
    assert await world.signer.pay() is None


async def test_halted_payouts_and_sweeps_wait(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.withdraws(ann, 5, PAYEES[0].identity)
    await world.user(70)
    await world.value("INSERT INTO payout_halts (subject, rule, figures) VALUES ('*', 'R2', '{}') RETURNING 1")
    world.signer._sweeps_due = 0.0
    assert (await world.signer.pay(), await world.signer.sweep()) == (None, 0)
    await world.value("DELETE FROM payout_halts RETURNING 1")
    world.signer._sweeps_due = 0.0
    assert await world.signer.sweep() == 1
    assert await world.signer.pay() is not None


async def test_without_two_endpoints_that_agree_nothing_is_signed(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.withdraws(ann, 5, PAYEES[0].identity)
    world.devnet.order("/faults", kind="unreachable", door="b")
    assert await world.signer.pay() is None
    world.devnet.order("/faults/clear")
    for _ in range(3):  # an endpoint that failed is left alone for a while
        signed = await world.signer.pay()
        if signed is not None:
            break
        await asyncio.sleep(5)
    assert signed is not None


async def test_on_mainnet_nothing_is_signed_before_the_epoch_is_known(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.withdraws(ann, 5, PAYEES[0].identity)
    resources = world.database.resources("qubix_signer", network="mainnet", qubic_rpc_urls=(world.devnet.url,), qubic_requests_per_s=500)
    signer = Signer(resources, world.sealer)
    signer._epoch = world.signer._epoch
    assert await signer.pay() is None
    assert signer._waits["payout"]
    await resources.close()


async def test_of_two_signers_the_first_stops_and_nothing_is_signed_twice(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.withdraws(ann, 5, PAYEES[0].identity)
    second = Signer(world.resources, world.sealer, holder="second")
    await second.start()
    with pytest.raises(NotLeader):
        await world.signer.pay()
    world.signer._epoch = second._epoch  # as if the lock had failed: the database still refuses
    await asyncio.gather(*(signer.pay() for signer in (second, world.signer, second)))
    assert len(await world.payments("kind = 'payout'")) == 1


async def test_every_address_is_that_of_its_sealed_seed(world: World) -> None:
    rows = await world.owner.exec_driver_sql("SELECT identity, sealed FROM signer_keys")
    found = [SealedSeed(row.identity, row.sealed) for row in rows]
    assert len(found) == FREE_MIN + 2
    assert all(world.sealer.subseed(seed) for seed in found)
