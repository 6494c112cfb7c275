"""Deposits, withdrawals and costs: the rules of the treasury's acts."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.integration.ledger.desk import TREASURY, WEB, Desk, open_desk

MOST = 2**63 - 1


@pytest.fixture
def desk(postgres: EmbeddedServer) -> Iterator[Desk]:
    with open_desk(postgres, network="devnet") as desk:
        yield desk
        assert desk.audit() == []


def person(desk: Desk) -> UUID:
    return desk.person()


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
        [owner for _, owner, _ in items],
        ["ADDRESS"] * n,
        list(range(n)),
        ["tick data"] * n,
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
    assert desk.act(TREASURY, capture, hold, crash=True) == 0
    assert desk.value(TREASURY, capture, hold) == 0
    assert desk.value(TREASURY, capture, hold) == 1
    assert desk.value(TREASURY, "SELECT withdrawn($1, true, 'other tx', 9, 'archive')", hold) == -1
    assert desk.value(TREASURY, "SELECT withdrawn($1, false, NULL, NULL, 'expired')", hold) == -1
    assert (desk.posted(ann), house(desk, "chain")) == (40, -40)


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
    assert desk.value(TREASURY, cost) == -3
    assert desk.rows("SELECT 1 FROM chain_rows") == []


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
