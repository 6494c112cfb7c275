"""What goes out: sent until its tick, then paid, dead or unknown, by proof alone; and never signed for twice."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from qubix.chains.qubic.errors import RpcUnavailable
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import PAYER, Till

PAYEE, OTHER = Person(710), Person(711)
FUNDED = (PAYER, PAYEE)


async def rich(till: Till, amount: int = 1000) -> UUID:
    """A user with money, and a hot address with the same amount."""
    user, address = await till.user()
    await till.paid(address, amount)
    sweep, _ = await till.sweep(address, amount)
    assert await till.decided(sweep) == "PAID"
    return user


async def test_a_payout_is_sent_settled_and_told(till: Till) -> None:
    user = await rich(till)
    before = int(till.devnet.balance(PAYEE)["balance"])
    hold = await till.withdraw(user, 600, PAYEE)
    payment, made = await till.sign(hold)
    assert await till.decided(payment) == "PAID"
    assert int(till.devnet.balance(PAYEE)["balance"]) == before + 600
    assert await till.wallet(user) == 400
    assert await till.value("SELECT state || ' ' || evidence FROM holds") == f"CAPTURED tx {made.id}"
    assert await till.value("SELECT raw->>'hash' FROM payments WHERE id = :i", i=payment) == made.id
    assert await till.told(user, made) == [("sent", 0), ("paid", 3)]
    await till.balances()
    assert await till.halts() == {}
    await till.sound()


async def test_a_sweep_moves_nothing_in_the_ledger_and_both_addresses_agree(till: Till) -> None:
    user = await rich(till, 70)
    assert await till.wallet(user) == 70
    assert await till.account("suspense") == 0, "our own sweep is no deposit"
    await till.balances()
    assert await till.halts() == {}
    await till.sound()


async def test_a_payout_is_sent_before_the_sweeps_that_were_signed_before_it(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.treasury.deciding.PAYMENTS_MAX", 1)
    user = await rich(till)
    _, address = await till.user()
    await till.paid(address, 1)
    await till.sweep(address, 1)
    payment, _ = await till.sign(await till.withdraw(user, 10, PAYEE))
    await till.treasurer.payer.step()
    assert await till.value("SELECT broadcasts FROM payments WHERE id = :i", i=payment) == 1


async def test_the_same_bytes_are_sent_again_until_three_ticks_before_theirs(till: Till) -> None:
    user = await rich(till)
    payment, made = await till.sign(await till.withdraw(user, 10, PAYEE))
    broadcasts = []
    for _ in range(12):
        await till.value("UPDATE payments SET broadcast_at = broadcast_at - interval '3 seconds' WHERE id = :i RETURNING 1", i=payment)
        await till.treasurer.payer.step()
        broadcasts.append(await till.value("SELECT broadcasts FROM payments WHERE id = :i", i=payment))
        await till.advance(1)
    assert broadcasts == [*range(1, 10), 9, 9, 9]
    assert made.tick - 3 == till.devnet.tick - 3
    await till.treasurer.payer.step()
    assert (await till.payment(payment))[0] == "SIGNED"


async def test_a_send_many_captures_every_hold_and_the_house_pays_its_fee(till: Till) -> None:
    ann, bob = await rich(till), await rich(till)
    await till.paid(till.house, 10)
    sweep, _ = await till.sweep(till.house, 10)
    assert await till.decided(sweep) == "PAID"
    holds = [await till.withdraw(ann, 100, PAYEE), await till.withdraw(bob, 200, OTHER), await till.withdraw(ann, 100, PAYEE)]
    payment, _ = await till.sign(*holds, fee=10)
    assert await till.decided(payment) == "PAID"
    assert (await till.wallet(ann), await till.wallet(bob), await till.account("house")) == (800, 800, 0)
    assert await till.value("SELECT count(*) FROM holds WHERE state = 'CAPTURED'") == 3
    await till.balances()
    assert await till.halts() == {}
    await till.sound()


async def test_a_paid_send_many_whose_fee_the_house_cannot_pay_ends_when_it_can(till: Till) -> None:
    user = await rich(till)
    till.pay(till.hot, 10)
    payment, _ = await till.sign(await till.withdraw(user, 100, PAYEE), fee=10)
    assert await till.decided(payment) == "UNKNOWN"
    assert "the house cannot pay" in (await till.payment(payment))[1]
    assert [(one["payment_id"], one["state"]) for one in (await till.status())["payments"]] == [(payment, "UNKNOWN")]
    assert await till.value("SELECT state FROM holds") == "CAPTURED"
    await till.paid(till.house, 10)
    assert await till.decided(payment) == "PAID"
    await till.sound()


async def test_a_send_many_that_the_contract_gave_back_is_dead(till: Till) -> None:
    user = await rich(till)
    till.pay(till.hot, 50)
    hold = await till.withdraw(user, 100, PAYEE)
    payment, _ = await till.sign(hold, fee=11)
    assert await till.decided(payment) == "DEAD"
    assert (await till.payment(payment))[1].startswith("not_flown")
    assert await till.value("SELECT state FROM holds") == "OPEN"
    await till.balances()
    assert await till.halts() == {}


async def test_a_dropped_payout_is_dead_and_is_signed_again_and_paid_once(either: Till) -> None:
    till = either
    user = await rich(till)
    before = int(till.devnet.balance(PAYEE)["balance"])
    hold = await till.withdraw(user, 600, PAYEE)
    till.devnet.order("/faults", kind="drop", for_ticks=15)
    first, dropped = await till.sign(hold)
    with pytest.raises(asyncpg.UniqueViolationError):
        await till.sign(await till.withdraw(user, 1, PAYEE))
    assert await till.decided(first) == "DEAD"
    assert await till.told(user, dropped) == [("sent", 0), ("dead", 0)]
    till.devnet.order("/faults/clear")
    second, _ = await till.sign(hold)
    assert await till.decided(second) == "PAID"
    assert int(till.devnet.balance(PAYEE)["balance"]) == before + 600
    await till.balances()
    assert await till.halts() == {}
    await till.sound()


async def test_a_payout_whose_every_broadcast_is_ambiguous_is_paid_once(till: Till) -> None:
    user = await rich(till)
    before = int(till.devnet.balance(PAYEE)["balance"])
    payment, made = await till.sign(await till.withdraw(user, 600, PAYEE))
    till.devnet.order("/faults", kind="ambiguous", for_ticks=1000, answer="cut")
    for _ in range(3):
        await till.value("UPDATE payments SET broadcast_at = broadcast_at - interval '3 seconds' WHERE id = :i RETURNING 1", i=payment)
        await till.treasurer.payer.step()
        await till.advance(1)
    till.devnet.order("/faults/clear")
    assert await till.decided(payment) == "PAID"
    assert int(till.devnet.balance(PAYEE)["balance"]) == before + 600
    assert await till.told(user, made) == [("sent", 0), ("paid", 3)]
    await till.sound()


async def test_a_payout_in_a_skipped_tick_is_dead(till: Till) -> None:
    user = await rich(till)
    payment, _ = await till.sign(await till.withdraw(user, 600, PAYEE))
    await till.treasurer.payer.step()
    till.devnet.order("/epoch", ticks=1000)
    assert await till.decided(payment) == "DEAD"
    assert (await till.payment(payment))[1].startswith("tick_skipped")


async def test_a_payout_that_the_balance_does_not_cover_is_dead(till: Till) -> None:
    user = await rich(till)
    payment, _ = await till.sign(await till.withdraw(user, 600, PAYEE))
    thief = till.pay(OTHER, 500, payer=till.hot)
    assert thief.tick < await till.value("SELECT tick FROM payments WHERE id = :i", i=payment)
    assert await till.decided(payment) == "UNKNOWN", "money of the address moved by something else"
    rule, _, needs_person = (await till.halts())["*"]
    assert (rule, needs_person) == ("S5", True)
    assert await till.value("SELECT state FROM holds") == "OPEN"


async def test_while_one_of_two_endpoints_denies_it_a_payout_is_unknown_and_then_paid(till: Till) -> None:
    user = await rich(till)
    payment, made = await till.sign(await till.withdraw(user, 600, PAYEE))
    till.devnet.order("/faults", kind="forget", for_ticks=1000, door="b")
    assert await till.decided(payment) == "UNKNOWN"
    assert "another does not" in (await till.payment(payment))[1]
    assert await till.told(user, made) == [("sent", 0), ("unknown", 0)]
    till.devnet.order("/faults/clear")
    assert await till.decided(payment) == "PAID"
    await till.sound()


async def test_what_both_endpoints_deny_while_the_counters_rose_stops_all_payouts(till: Till) -> None:
    user = await rich(till)
    payment, _ = await till.sign(await till.withdraw(user, 600, PAYEE))
    till.devnet.order("/faults", kind="forget", for_ticks=1000)
    assert await till.decided(payment) == "UNKNOWN"
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, needs_person) == ("S5", True)
    assert figures["S5"][0]["payment"] == str(payment)
    till.devnet.order("/faults/clear")
    assert await till.decided(payment) == "PAID"
    assert (await till.halts())["*"][2], "a person has not looked yet"
    await till.sound()


async def test_a_wrong_money_flew_leaves_a_payout_unknown_and_never_dead(till: Till) -> None:
    user = await rich(till)
    payment, _ = await till.sign(await till.withdraw(user, 600, PAYEE))
    till.devnet.order("/faults", kind="money_flew", mode="false", for_ticks=1000)
    assert await till.decided(payment) == "UNKNOWN"
    till.devnet.order("/faults/clear")
    assert await till.decided(payment) == "PAID"


async def test_a_network_that_is_away_for_an_hour_of_ticks_changes_nothing(till: Till) -> None:
    user, address = await till.user()
    await till.paid(address, 1000)
    sweep, _ = await till.sweep(address, 1000)
    await till.treasurer.payer.step()
    till.devnet.order("/faults", kind="unreachable", for_ticks=4000)
    till.devnet.step(3600)
    for _ in range(2):
        with pytest.raises(RpcUnavailable):
            await till.treasurer.watch()
        await till.treasurer.payer.step()
    assert (await till.payment(sweep))[0] == "SIGNED"
    till.devnet.order("/faults/clear")
    till.pay(address, 5)
    for endpoint in till.treasurer._resources.qubic._wire.endpoints:
        endpoint.answered()
    await till.advance()
    assert await till.decided(sweep) == "PAID"
    assert await till.wallet(user) == 1005
    await till.balances()
    assert await till.halts() == {}
    await till.sound()


@pytest.mark.parametrize("steps", range(1, 5))
async def test_p_b36_an_end_that_was_cut_off_anywhere_is_taken_up_where_it_stopped(
    till: Till, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between any two transactions of a paid send-many's end; the next one finishes it, once."""
    ann = await rich(till)
    await till.paid(till.house, 10)
    sweep, _ = await till.sweep(till.house, 10)
    assert await till.decided(sweep) == "PAID"
    payment, _ = await till.sign(await till.withdraw(ann, 100, PAYEE), await till.withdraw(ann, 200, OTHER), fee=10)

    class Killed(BaseException):
        pass

    left = [steps]

    def reach(name: str) -> None:
        if name in ("treasury.captured", "treasury.cost_booked", "treasury.paid"):
            left[0] -= 1
            if not left[0]:
                raise Killed

    monkeypatch.setattr("qubix.treasury.deciding.reach", reach)
    with pytest.raises(Killed):
        await till.decided(payment)
    assert (await till.payment(payment))[0] == ("PAID" if steps == 4 else "SIGNED")
    assert await till.decided(payment) == "PAID"
    assert (await till.wallet(ann), await till.account("house")) == (700, 0)
    await till.balances()
    assert await till.halts() == {}
    await till.sound()
