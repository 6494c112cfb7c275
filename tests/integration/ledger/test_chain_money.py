"""Deposits, withdrawals and costs: the rules of the treasury's acts."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.integration.ledger.desk import SIGNER, TREASURY, WEB, Desk, open_desk

MOST = 2**63 - 1


@pytest.fixture
def desk(postgres: EmbeddedServer) -> Iterator[Desk]:
    with open_desk(postgres, network="devnet") as desk:
        yield desk
        assert desk.audit() == []


def person(desk: Desk) -> UUID:
    return desk.person()


def address_of(desk: Desk, owner: UUID | None) -> str:
    """The owner's deposit address; for None one that is nobody's."""
    letters = "".join(chr(ord("A") + int(digit, 16)) for digit in owner.hex) if owner else ""
    identity = letters.ljust(60, "Z")
    give = (
        "INSERT INTO chain_addresses (identity, purpose, user_id, given_at) SELECT $1, 'user', id, now() FROM users WHERE id = $2"
        " ON CONFLICT DO NOTHING"
    )
    desk.value(OWNER, give, identity, owner)
    return identity


def sign(desk: Desk, hold: UUID, tx: str, amount: int, *, fee: int = 0) -> UUID:
    """A payment of the hold, as the signer stores it before it is sent."""
    hot, payment = "H" * 60, uuid4()
    desk.value(OWNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'hot') ON CONFLICT DO NOTHING", hot)
    call = "SELECT sign_payout($1, $2, 'TO', $3, $4, 9, $5, '', 'bytes', $6, 0, 0, $7)"
    assert desk.value(SIGNER, call, payment, hot, amount + fee, fee, 1 if fee else 0, tx, [hold]) == 0
    return payment


def deposit(desk: Desk, *items: tuple[str, UUID | None, int], crash: bool = False) -> list[int]:
    """One batch: (transaction, owner, amount) each."""
    n = len(items)
    found: list[int] = desk.act(
        TREASURY,
        "SELECT deposit($1, $2, $3, $4, $5, $6, $7, $8)",
        [tx for tx, _, _ in items],
        [0] * n,
        [1] * n,
        [amount for _, _, amount in items],
        [address_of(desk, owner) for _, owner, _ in items],
        list(range(n)),
        ["tick data"] * n,
        ["PAYER"] * n,
        crash=crash,
    )
    return found


def house(desk: Desk, kind: str) -> int:
    return int(desk.value(OWNER, "SELECT posted FROM accounts WHERE kind = $1 AND asset = 1", kind))


def test_each_item_of_a_batch_gets_its_own_answer(desk: Desk) -> None:
    ann, bob = person(desk), person(desk)
    assert deposit(desk, ("t1", ann, 10)) == [0]
    answers = deposit(
        desk,
        ("t1", ann, 10),
        ("t1", ann, 11),
        ("t1", bob, 10),
        ("t2", bob, 5),
        ("t2", bob, 5),
        ("t2", bob, 6),
        ("t3", None, 7),
        ("t4", uuid4(), 3),
        ("t5", ann, 0),
        ("t6", ann, -1),
        ("t7", ann, 1),
    )
    assert answers == [1, -1, -1, 0, 1, -1, 0, 0, -5, -5, 0]
    assert (desk.posted(ann), desk.posted(bob), house(desk, "suspense"), house(desk, "chain")) == (11, 5, 10, -26)


def test_a_deposit_that_would_overflow_is_refused_alone(desk: Desk) -> None:
    ann, bob = person(desk), person(desk)
    assert deposit(desk, ("a", ann, MOST - 5), ("b", bob, 6), ("c", bob, 5)) == [0, -5, -5]
    assert deposit(desk, ("c", bob, 5)) == [0]
    assert deposit(desk, ("d", ann, 1)) == [-5]
    assert (desk.posted(ann), desk.posted(bob), house(desk, "chain")) == (MOST - 5, 5, -MOST)


def test_a_batch_that_crashed_before_its_commit_left_nothing(desk: Desk) -> None:
    ann = person(desk)
    assert deposit(desk, ("a", ann, 4), ("b", ann, 5), crash=True) == [0, 0]
    assert desk.posted(ann) == 0
    assert deposit(desk, ("a", ann, 4), ("b", ann, 5)) == [0, 0]


def test_p_a04_any_batches_of_deposits_credit_each_transaction_once(postgres: EmbeddedServer) -> None:
    items = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2), st.integers(1, 50)), max_size=8)
    with open_desk(postgres, network="devnet") as desk:

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(batches=st.lists(st.tuples(items, st.booleans()), max_size=5))
        def check(batches: list[tuple[list[tuple[str, int, int]], bool]]) -> None:
            people, run = [person(desk) for _ in range(3)], uuid4().hex
            seen: dict[str, tuple[int, int]] = {}
            for batch, crash in batches:
                named = [(f"{run}{tx}", people[owner], amount) for tx, owner, amount in batch]
                if crash:
                    deposit(desk, *named, crash=True)
                expected = []
                for tx, owner, amount in batch:
                    expected.append(0 if tx not in seen else 1 if seen[tx] == (owner, amount) else -1)
                    seen.setdefault(tx, (owner, amount))
                assert (deposit(desk, *named) or []) == expected
            for i, who in enumerate(people):
                assert desk.posted(who) == sum(amount for owner, amount in seen.values() if owner == i)

        check()
        assert desk.audit() == []


def withdraw(desk: Desk, hold: UUID, user: UUID, amount: int, address: str = "TO") -> int:
    return int(desk.value(WEB, "SELECT withdraw($1, $2, 1::smallint, $3, $4)", hold, user, amount, address))


def test_a_withdrawal_is_held_then_captured_whole_once(desk: Desk) -> None:
    ann, hold = person(desk), uuid4()
    deposit(desk, ("a", ann, 100))
    assert withdraw(desk, hold, ann, 101) == -3
    assert withdraw(desk, hold, ann, 60) == 0
    assert withdraw(desk, hold, ann, 60) == 1
    assert withdraw(desk, hold, ann, 61) == -1
    assert withdraw(desk, uuid4(), ann, 41) == -3
    escrow = uuid4()
    assert desk.value(WEB, "SELECT open_escrow($1, $2, 1::smallint)", escrow, ann) == 0
    assert desk.value(WEB, "SELECT fund($1, 1, 41)", escrow) == -3, "what is held cannot be spent"
    capture = "SELECT withdrawn($1, true, 'tx', 9, 'archive and tick data')"
    assert desk.value(TREASURY, capture, hold) == -9, "nothing is signed for it"
    payment = sign(desk, hold, "tx", 60)
    assert desk.value(TREASURY, "SELECT withdrawn($1, false, NULL, NULL, 'absent')", hold) == -4, "it may still be paid"
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'other tx', 9, 'archive')", hold) == -9
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", payment) == -4, "its hold is open"
    assert desk.act(TREASURY, capture, hold, crash=True) == 0
    assert desk.value(TREASURY, capture, hold) == 0
    assert desk.value(TREASURY, capture, hold) == 1
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'other tx', 9, 'archive')", hold) == -1
    assert desk.value(TREASURY, "SELECT withdrawn($1, false, NULL, NULL, 'expired')", hold) == -1
    assert desk.value(TREASURY, "SELECT payment_ended($1, false, 'absent')", payment) == -4, "it has paid"
    assert [desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", payment) for _ in range(2)] == [0, 1]
    assert desk.value(TREASURY, "SELECT payment_ended($1, false, 'absent')", payment) == -1
    assert (desk.posted(ann), house(desk, "chain")) == (40, -40)


def test_a_hold_is_in_one_payment_that_may_execute_and_signed_for_again_only_when_that_is_dead(desk: Desk) -> None:
    ann, bob, hold = person(desk), person(desk), uuid4()
    deposit(desk, ("a", ann, 100), ("b", bob, 50))
    assert withdraw(desk, hold, ann, 60) == 0
    first = sign(desk, hold, "first", 60)
    call = "SELECT sign_payout($1, $2, 'TO', 60, 0, 9, 0, '', 'bytes', $3, 0, 0, $4)"
    assert desk.value(SIGNER, call, uuid4(), "H" * 60, "second", [hold]) == -4, "the hold is in a live payment"
    other = uuid4()
    assert withdraw(desk, other, bob, 50) == 0
    with pytest.raises(asyncpg.UniqueViolationError):
        sign(desk, other, "third", 50)
    assert desk.value(TREASURY, "SELECT payment_unknown($1, 'the archives disagree')", first) == 0
    with pytest.raises(asyncpg.UniqueViolationError):
        sign(desk, other, "third", 50)
    assert desk.value(TREASURY, "SELECT payment_ended($1, false, 'absent by two')", first) == 0
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'first', 9, 'archive')", hold) == -9, "it is dead"
    second = sign(desk, hold, "second", 60)
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'second', 9, 'archive')", hold) == 0
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", second) == 0


@pytest.mark.parametrize(
    ("limits", "code"),
    [("payment_max = 59", -9), ("user_day_max = 59", -9), ("wallet_day_max = 59", -9), ("payment_max = 60", 0)],
)
def test_past_a_ceiling_a_payout_waits_for_an_approval(desk: Desk, limits: str, code: int) -> None:
    ann, hold = person(desk), uuid4()
    deposit(desk, ("a", ann, 100))
    assert withdraw(desk, hold, ann, 60) == 0
    desk.value(SIGNER, f"UPDATE signer_limits SET {limits}")
    desk.value(OWNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'hot')", "H" * 60)
    call = "SELECT sign_payout($1, $2, 'TO', 60, 0, 9, 0, '', 'bytes', 'tx', 0, 0, $3)"
    assert desk.act(SIGNER, call, uuid4(), "H" * 60, [hold], crash=True) == code
    desk.value(SIGNER, "INSERT INTO payout_approvals (hold_id, approved_by) VALUES ($1, 'ops')", hold)
    assert desk.value(SIGNER, call, uuid4(), "H" * 60, [hold]) == 0


def test_nothing_is_signed_while_payouts_are_halted(desk: Desk) -> None:
    ann, bob, hold, other = person(desk), person(desk), uuid4(), uuid4()
    deposit(desk, ("a", ann, 100), ("b", bob, 100))
    assert [withdraw(desk, hold, ann, 60), withdraw(desk, other, bob, 60)] == [0, 0]
    desk.value(OWNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'hot')", "H" * 60)
    call = "SELECT sign_payout($1, $2, 'TO', 60, 0, 9, 0, '', 'bytes', $3, 0, 0, $4)"
    halt = "INSERT INTO payout_halts (subject, rule, figures) VALUES ($1, 'R1', '{}')"
    desk.value(TREASURY, halt, address_of(desk, ann))
    assert desk.value(SIGNER, call, uuid4(), "H" * 60, "tx1", [hold]) == -9
    assert desk.act(SIGNER, call, uuid4(), "H" * 60, "tx2", [other], crash=True) == 0, "the halt is ann's alone"
    desk.value(TREASURY, halt, "*")
    assert desk.value(SIGNER, call, uuid4(), "H" * 60, "tx2", [other]) == -9
    sweep = "SELECT sign_sweep($1, $2, $3, 60, 9, 'bytes', 'tx3', 0, 0)"
    assert desk.value(SIGNER, sweep, uuid4(), address_of(desk, bob), "H" * 60) == -9


def test_a_sweep_goes_from_a_deposit_address_to_the_hot_one_and_moves_nothing_in_the_ledger(desk: Desk) -> None:
    ann, sweep_id = person(desk), uuid4()
    deposit(desk, ("a", ann, 100))
    hot, source = "H" * 60, address_of(desk, ann)
    desk.value(OWNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'hot')", hot)
    sweep = "SELECT sign_sweep($1, $2, $3, $4, 9, 'bytes', 'tx', 0, 0)"
    assert desk.value(SIGNER, sweep, sweep_id, source, "STRANGER", 100) == -4
    assert desk.value(SIGNER, sweep, sweep_id, hot, source, 100) == -4
    assert desk.value(SIGNER, sweep, sweep_id, source, hot, 101) == -5
    assert desk.value(SIGNER, sweep, sweep_id, source, hot, 100) == 0
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", sweep_id) == 0
    at = "SELECT coalesce(sum(amount), 0) FROM chain_rows WHERE address = $1"
    assert [desk.value(OWNER, at, where) for where in (source, hot)] == [0, 100]
    assert desk.posted(ann) == 100


def test_an_address_is_given_once_and_stays_its_users(desk: Desk) -> None:
    ann, bob = person(desk), person(desk)
    assert desk.value(WEB, "SELECT give_address($1)", ann) is None, "the signer has made none yet"
    for letter in "AB":
        desk.value(SIGNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'user')", letter * 60)
    assert [desk.value(WEB, "SELECT give_address($1)", who) for who in (ann, bob, ann)] == ["A" * 60, "B" * 60, "A" * 60]
    assert withdraw(desk, uuid4(), ann, 1, "B" * 60) == -9, "no money goes out to come in again"
    with pytest.raises(asyncpg.RestrictViolationError):
        desk.value(OWNER, "UPDATE chain_addresses SET user_id = NULL, given_at = NULL WHERE user_id = $1", ann)


def test_a_withdrawal_is_called_off_by_its_owner_alone_and_only_while_nothing_is_signed(desk: Desk) -> None:
    ann, bob, hold, other = person(desk), person(desk), uuid4(), uuid4()
    deposit(desk, ("a", ann, 100))
    assert [withdraw(desk, hold, ann, 60), withdraw(desk, other, ann, 40)] == [0, 0]
    cancel = "SELECT cancel_withdrawal($1, $2)"
    assert [desk.value(WEB, cancel, hold, bob), desk.value(WEB, cancel, uuid4(), ann)] == [-2, -2]
    payment = sign(desk, hold, "tx", 60)
    assert desk.value(WEB, cancel, hold, ann) == -4, "it may be paid"
    assert desk.value(TREASURY, "SELECT payment_unknown($1, 'the archives disagree')", payment) == 0
    assert desk.value(WEB, cancel, hold, ann) == -4, "it may have been paid"
    assert desk.value(TREASURY, "SELECT payment_ended($1, false, 'absent by two')", payment) == 0
    assert desk.act(WEB, cancel, hold, ann, crash=True) == 0
    assert [desk.value(WEB, cancel, hold, ann) for _ in range(2)] == [0, 1]
    sign_again = "SELECT sign_payout($1, $2, 'TO', 60, 0, 9, 0, '', 'bytes', 'tx2', 0, 0, $3)"
    assert desk.value(SIGNER, sign_again, uuid4(), "H" * 60, [hold]) == -4, "it is called off"
    second = sign(desk, other, "tx3", 40)
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'tx3', 9, 'archive')", other) == 0
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", second) == 0
    assert desk.value(WEB, cancel, other, ann) == -4, "it is paid"
    assert desk.posted(ann) == 60
    assert withdraw(desk, uuid4(), ann, 60) == 0


def test_a_void_hold_gives_the_money_back_and_stays_void(desk: Desk) -> None:
    ann, hold = person(desk), uuid4()
    deposit(desk, ("a", ann, 100))
    assert withdraw(desk, hold, ann, 60) == 0
    assert desk.value(TREASURY, "SELECT withdrawn($1, false, NULL, NULL, '')", hold) == -5, "a void needs its proof"
    assert desk.value(TREASURY, "SELECT withdrawn($1, false, NULL, NULL, 'tick passed, absent in both')", hold) == 0
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'tx', 9, 'archive')", hold) == -1
    assert withdraw(desk, uuid4(), ann, 100) == 0
    with pytest.raises(asyncpg.RestrictViolationError):
        desk.value(OWNER, "UPDATE holds SET state = 'OPEN', evidence = NULL, ended_at = NULL WHERE id = $1", hold)


def test_a_cost_is_paid_by_the_house_or_not_at_all(desk: Desk) -> None:
    cost = "SELECT cost('tx', 1::smallint, 5, 'CONTRACT', 3, 'archive')"
    assert desk.value(TREASURY, cost) == -9, "no payment has such a fee"
    ann, hold = person(desk), uuid4()
    deposit(desk, ("a", ann, 100))
    assert withdraw(desk, hold, ann, 60) == 0
    payment = sign(desk, hold, "tx", 60, fee=5)
    cost = "SELECT cost('tx', 1::smallint, 5, $1, 9, 'archive')"
    assert desk.value(TREASURY, cost, "H" * 60) == -3
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'tx', 9, 'archive')", hold) == 0
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", payment) == -4, "its fee is not booked"
    float_address = "F" * 60
    desk.value(OWNER, "INSERT INTO chain_addresses (identity, purpose) VALUES ($1, 'house')", float_address)
    into = "SELECT deposit('{f}', '{0}', '{1}', '{7}', ARRAY[$1], '{3}', '{proof}', '{PAYER}')"
    assert desk.value(TREASURY, into, float_address) == [0]
    assert [desk.value(TREASURY, cost, "H" * 60) for _ in range(2)] == [0, 1]
    assert desk.value(TREASURY, "SELECT payment_ended($1, true, 'archive')", payment) == 0
    assert (house(desk, "house"), house(desk, "chain")) == (2, -42)


def test_on_network_none_nothing_comes_from_a_chain_or_goes_there(postgres: EmbeddedServer) -> None:
    with open_desk(postgres) as desk:
        ann = desk.person(100)
        assert withdraw(desk, uuid4(), ann, 1) == -7
        assert deposit(desk, ("a", ann, 1)) == [-7]
        assert desk.value(TREASURY, "SELECT cost('tx', 1::smallint, 5, 'CONTRACT', 3, 'archive')") == -7


def test_a_chain_ledger_has_no_faucet(desk: Desk) -> None:
    assert desk.value(WEB, "SELECT faucet($1, 1::smallint, 5, 'n')", person(desk)) == -7


@pytest.mark.parametrize("amount", [0, -1, -(2**63), 10**15 + 1, 2**63 - 1])
def test_the_faucet_gives_only_what_a_faucet_gives(postgres: EmbeddedServer, amount: int) -> None:
    with open_desk(postgres) as desk:
        ann = desk.person()
        assert desk.value(WEB, "SELECT faucet($1, 1::smallint, $2, 'n')", ann, amount) == -5
        assert desk.posted(ann) == 0
