"""What comes in: credited once, when it is final and proved twice, whatever the archive says."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from qubix.chains.qubic.errors import RpcUnavailable
from qubix.chains.qubic.transaction import Transaction
from qubix.treasury import watching
from qubix.treasury.receiving import Payment
from qubix.treasury.watch_store import Noted
from qubix.treasury.witnesses import Read, Reading
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import FINAL, PAYER, Till
from tests.unit.treasury.chain import shown

STRANGER = Person(701)
FUNDED = (PAYER, STRANGER)


async def test_a_deposit_is_credited_once_when_it_is_three_ticks_past_and_proved(till: Till) -> None:
    user, address = await till.user()
    made = till.pay(address, 500, payload=b"qubix:job:1")
    await till.advance(FINAL - 1)
    assert await till.wallet(user) == 0
    await till.advance(1)
    await till.advance(3)
    assert await till.wallet(user) == 500
    assert await till.incoming(made) == [(0, "CREDITED", 3)]
    assert bytes(await till.value("SELECT memo FROM incoming")) == b"qubix:job:1"
    raw = await till.value("SELECT raw FROM incoming")
    assert (raw["hash"], raw["amount"], raw["moneyFlew"]) == (made.id, "500", True)
    assert (await till.told(user))[-1] == ("credited", 3)
    assert await till.account("chain") == -500
    await till.sound()


async def test_a_send_many_credits_each_address_by_its_place(till: Till) -> None:
    (ann, to_ann), (bob, to_bob) = await till.user(), await till.user()
    made = till.pay_many([(STRANGER, 5), (to_ann, 20), (to_bob, 30), (to_ann, 20)])
    await till.advance()
    assert await till.incoming(made) == [(place, "CREDITED", 3) for place in (1, 2, 3)]
    assert (await till.wallet(ann), await till.wallet(bob)) == (40, 30)
    await till.sound()


async def test_a_send_many_that_was_given_back_credits_nobody(till: Till) -> None:
    ann, to_ann = await till.user()
    made = till.pay_many([(to_ann, 20)], fee=11)
    await till.advance()
    assert await till.incoming(made) == []
    assert await till.wallet(ann) == 0


async def test_what_comes_to_nobodys_address_waits_in_suspense_and_the_houses_goes_to_the_house(till: Till) -> None:
    free = await till.address()
    for address, amount in ((free, 7), (till.hot, 8), (till.house, 9)):
        till.pay(address, amount)
    await till.advance()
    assert (await till.account("suspense"), await till.account("house"), await till.account("chain")) == (15, 9, -24)
    status = await till.status()
    assert (status["suspense"], status["house"]) == (15, 9)
    await till.sound()


async def test_an_address_that_was_made_after_the_last_look_misses_nothing(till: Till) -> None:
    await till.advance(1)
    user, address = await till.user()
    await till.paid(address, 11)
    assert await till.wallet(user) == 11


async def test_the_first_look_begins_before_the_first_address_was_made(till: Till) -> None:
    user, address = await till.user()
    till.pay(address, 12)
    till.devnet.step(FINAL)
    await till.owner.execute(sa.text("DELETE FROM chain_state"))
    await till.treasurer.watch()
    assert await till.wallet(user) == 12


async def test_duplicate_and_reordered_rows_credit_once(till: Till) -> None:
    user, address = await till.user()
    till.devnet.order("/faults", kind="duplicate", for_ticks=1000)
    till.pay(address, 5)
    till.pay(address, 6)
    await till.advance()
    await till.owner.execute(sa.text("UPDATE chain_state SET cursor = cursor - 5"))
    await till.advance(1)
    assert await till.wallet(user) == 11
    await till.sound()


async def test_money_that_the_archive_wrongly_calls_flown_is_never_credited(till: Till) -> None:
    user, address = await till.user()
    poor = Person(702)
    till.devnet.fund(poor, 10)
    first = till.pay(STRANGER, 10, payer=poor)
    second = poor.pays(address.key, 9, first.tick)
    till.devnet.send(second)
    till.devnet.order("/faults", kind="money_flew", mode="true", for_ticks=1000)
    await till.advance()
    assert await till.wallet(user) == 0
    assert [state for _, state, _ in await till.incoming(second)] == ["DOUBTFUL"]
    assert [one["tx_id"] for one in (await till.status())["incoming"]] == [second.id]
    till.devnet.order("/faults/clear")
    await till.advance(1)
    assert [state for _, state, _ in await till.incoming(second)] == ["GONE"]


async def test_money_that_the_archive_wrongly_calls_not_flown_is_doubtful_until_it_says_otherwise(till: Till) -> None:
    user, address = await till.user()
    till.devnet.order("/faults", kind="money_flew", mode="false", for_ticks=1000)
    made = await till.paid(address, 13)
    assert await till.incoming(made) == [(0, "DOUBTFUL", 0)]
    assert await till.wallet(user) == 0
    till.devnet.order("/faults/clear")
    await till.advance(1)
    assert await till.incoming(made) == [(0, "CREDITED", 3)]
    assert await till.wallet(user) == 13
    await till.sound()


async def test_one_endpoint_that_hides_a_payment_or_lies_about_it_only_delays_it(till: Till) -> None:
    user, address = await till.user()
    for kind, more in (("forget", {}), ("money_flew", {"mode": "inverted"})):
        before = await till.wallet(user)
        till.devnet.order("/faults", kind=kind, for_ticks=1000, door="b", **more)
        made = await till.paid(address, 13)
        assert [state for _, state, _ in await till.incoming(made)] == ["DOUBTFUL"]
        assert await till.wallet(user) == before
        till.devnet.order("/faults/clear")
        await till.advance(1)
        assert await till.wallet(user) == before + 13
    await till.sound()


async def test_a_payment_waits_for_its_second_proof_and_the_cursor_does_not(till: Till) -> None:
    user, address = await till.user()
    till.devnet.order("/archive", lag=3, log_lag=50)
    other = Person(703)
    till.devnet.fund(other, 50)
    free = await till.address("user")
    made = till.pay_many([(address, 20), (free, 1)])
    await till.advance()
    assert {state for _, state, _ in await till.incoming(made)} <= {"WAITING", "CREDITED"}
    cursor = await till.value("SELECT cursor FROM chain_state")
    await till.advance(2)
    assert await till.value("SELECT cursor FROM chain_state") == cursor + 2
    till.devnet.order("/archive", lag=3)
    await till.advance(1)
    assert await till.incoming(made) == [(0, "CREDITED", 3), (1, "CREDITED", 3)]
    assert await till.wallet(user) == 20


async def test_a_payment_shown_in_a_wrong_tick_too_keeps_its_own_and_is_judged_there(till: Till) -> None:
    user, address = await till.user()
    made = till.pay(address, 20)
    true = Payment(made.id, 0, address.identity, 20, made.tick, PAYER.identity, PAYER.identity, True)
    wrong = dataclasses.replace(true, tick=made.tick + 1, amount=7, genuine=False)
    before = dataclasses.replace(wrong, tick=made.tick - 1)
    async with till.treasurer.books() as books:
        for payment in (before, true, wrong):
            await books.rows.note([Noted(payment, "WAITING" if payment.genuine else "DOUBTFUL", 2, "", {})] * 2)
    row = (await till.owner.execute(sa.text("SELECT tick, amount, state FROM incoming"))).one()
    assert tuple(row) == (made.tick, 20, "WAITING")
    await till.advance()
    await till.treasurer.watch()
    assert await till.incoming(made) == [(0, "CREDITED", 3)]
    assert await till.wallet(user) == 20


async def test_a_payment_that_a_sole_endpoint_hid_is_found_by_the_balance(sole: Till) -> None:
    user, address = await sole.user()
    sole.devnet.order("/faults", kind="forget", for_ticks=1000)
    await sole.paid(address, 14)
    assert await sole.wallet(user) == 0
    await sole.balances()
    assert list(await sole.halts()) == [address.identity]
    sole.devnet.order("/faults/clear")
    await sole.balances()
    assert await sole.wallet(user) == 14
    await sole.balances()
    assert await sole.halts() == {}


async def test_skipped_ticks_and_a_new_epoch_are_passed_and_what_comes_after_is_found(till: Till) -> None:
    user, address = await till.user()
    for path in ("/skip", "/epoch"):
        till.pay(address, 5)
        till.devnet.step(4)
        till.devnet.order(path, ticks=1500)
        till.pay(address, 6)
        await till.advance()
        await till.advance(1)
    assert await till.wallet(user) == 22
    assert (await till.state()).cursor == till.devnet.tick - 6
    await till.sound()


async def test_an_archive_that_falls_far_behind_delays_and_then_everything_is_there(till: Till) -> None:
    user, address = await till.user()
    till.devnet.order("/archive", lag=200)
    await till.paid(address, 15)
    await till.advance(50)
    assert await till.wallet(user) == 0
    till.devnet.order("/archive", lag=3)
    await till.advance(1)
    assert await till.wallet(user) == 15


async def test_ticks_that_go_backwards_move_no_cursor_back(till: Till) -> None:
    user, address = await till.user()
    await till.paid(address, 16)
    before = await till.state()
    till.devnet.order("/faults", kind="stale", ticks=30, next=6)
    for _ in range(3):
        with contextlib.suppress(RpcUnavailable):
            await till.advance(1)
    after = await till.state()
    assert (after.cursor >= before.cursor, after.head >= before.head, after.processed >= before.processed) == (True, True, True)
    till.devnet.order("/faults/clear")
    await till.advance(1)
    assert await till.wallet(user) == 16


async def test_a_transaction_from_our_address_that_nobody_here_signed_stops_all_payouts(till: Till) -> None:
    user, address = await till.user()
    await till.paid(address, 100)
    stolen = till.pay(STRANGER, 60, payer=address)
    await till.advance()
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, needs_person) == ("S5", True)
    assert stolen.id in figures["S5"][0]["reason"]
    assert await till.wallet(user) == 100


async def test_what_one_endpoint_makes_up_of_our_addresses_stops_nobody(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    user, address = await till.user()
    witnesses = till.treasurer.watcher.witnesses
    read = witnesses.read

    async def lying(tick: int, processed: int, ours: Mapping[str, str]) -> Reading:
        found = await read(tick, processed, ours)
        if not isinstance(found, Read):
            return found
        made_up = shown(Transaction(address.key, STRANGER.key, 60, tick, signature=bytes(64)))
        first = next(iter(found.lists))
        return Read(tick, {**found.lists, first: (*found.lists[first], made_up)})

    monkeypatch.setattr(witnesses, "read", lying)
    await till.paid(address, 100)
    assert await till.halts() == {}
    assert await till.wallet(user) == 100


async def test_p_b21_confirmations_never_run_ahead_of_the_proofs_and_never_fall(till: Till) -> None:
    user, address = await till.user()
    made = till.pay(address, 17)
    shown = 0
    for step in range(FINAL + 4):
        await till.advance(1 if step else 0)
        archived = int(till.devnet.live("tick-info")["tickInfo"]["tick"]) - 3
        rows = await till.incoming(made)
        count = rows[0][2] if rows else 0
        assert shown <= count <= max(0, archived - made.tick)
        assert count < 3 or rows[0][1] == "CREDITED"
        shown = count
    assert shown == 3
    told = [count for _, count in await till.told(user, made)]
    assert told == sorted(told)
    assert told == [0, 1, 2, 3]


async def test_p_b21_a_payment_that_is_not_flown_has_no_confirmations(till: Till) -> None:
    _, address = await till.user()
    poor = Person(704)
    till.devnet.fund(poor, 10)
    first = till.pay(STRANGER, 10, payer=poor)
    second = poor.pays(address.key, 9, first.tick)
    till.devnet.send(second)
    for _ in range(FINAL + 1):
        await till.advance(1)
        assert all(count == 0 for _, _, count in await till.incoming(second))
    assert [state for _, state, _ in await till.incoming(second)] == ["GONE"]


async def test_what_takes_long_to_catch_up_with_is_read_in_parts_and_the_head_is_looked_at_in_between(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends and decides goes by the head: an hour's backlog at five requests a second must not hide it for minutes."""
    monkeypatch.setattr(watching, "SCAN_S", 0.0)
    user, address = await till.user()
    till.pay(address, 500)
    till.devnet.step(10 * watching.TICKS_AT_ONCE)
    before = await till.state()
    await till.treasurer.watcher.look()
    assert await till.treasurer.watcher.scan() == watching.TICKS_AT_ONCE
    till.devnet.step(5)
    await till.treasurer.watch()
    after = await till.state()
    assert (after.head - before.head, after.processed - after.cursor) == (10 * watching.TICKS_AT_ONCE + 5, 3)
    assert await till.wallet(user) == 500
