"""Settlement on PostgreSQL: exactly once, whole, in the states that the model's tables name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix.escrow.model import EARNING_WAYS, ESCROW_WAYS, EarningState, EscrowState, Outcome, ruled_shares, settled_state
from qubix.kernel.ids import transfer_id
from qubix.kernel.money import Qu, fee
from qubix.ledger.model import Code
from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.integration.ledger.desk import CONTROLLER, LONG_S, WEB, Desk, open_desk

HUNDRED: dict[str, Any] = {"max_examples": 100, "deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def desk(postgres: EmbeddedServer) -> Iterator[Desk]:
    with open_desk(postgres) as desk:
        yield desk
        assert desk.audit() == []


def ids(prefix: str, lines: list[tuple[str, object, int]], escrow: object) -> list[Any]:
    return [transfer_id(escrow, f"{prefix}/{line}") for line, _, _ in lines]  # type: ignore[arg-type]


@settings(**HUNDRED)
@given(
    funded=st.integers(1, 10**6),
    parts=st.lists(st.integers(0, 400_000), max_size=3),
    outcome=st.sampled_from(Outcome),
    bps=st.sampled_from((0, 1, 999, 10_000)),
    calls=st.integers(1, 3),
    crashes=st.booleans(),
)
def test_p_b18_b19_b20_locked_while_running_and_released_or_returned_exactly_once(
    desk: Desk, funded: int, parts: list[int], outcome: Outcome, bps: int, calls: int, crashes: bool
) -> None:
    payer, payees = desk.person(funded + 5), [desk.person() for _ in parts]
    escrow = desk.locked(payer, funded)
    lines = [(str(i), payee, gross) for i, (payee, gross) in enumerate(zip(payees, parts, strict=True))]
    account = "SELECT posted FROM accounts WHERE id = (SELECT account_id FROM escrows WHERE id = $1)"
    assert (desk.posted(payer), desk.value(OWNER, account, escrow)) == (5, funded), "locked while it runs"
    if sum(parts) > funded:
        assert desk.settle(escrow, outcome, lines, bps=bps) is Code.OUT_OF_RANGE
        lines = []
    if crashes:
        desk.settle(escrow, outcome, lines, bps=bps, crash=True)
        assert desk.value(OWNER, account, escrow) == funded
    answers = [desk.settle(escrow, outcome, lines, bps=bps) for _ in range(calls)]
    assert answers == [Code.DONE] + [Code.DONE_ALREADY] * (calls - 1)
    assert desk.settle(escrow, outcome, [*lines, ("extra", payer, 0)], bps=bps) is Code.OTHER_CONTENT
    earned = sum(gross for _, _, gross in lines)
    assert desk.posted(payer) == 5 + funded - earned, "what was not earned came back"
    (row,) = desk.rows("SELECT state, paid, refunded FROM escrows WHERE id = $1", escrow)
    assert tuple(row) == (settled_state(outcome, Qu(earned), Qu(earned)).value, earned, funded - earned)
    earnings = ids("line", [line for line in lines if line[2]], escrow)
    if earnings:
        assert set(desk.mature(earnings)) == {Code.DONE}
        assert set(desk.mature(earnings)) == {Code.DONE_ALREADY}
    for _, payee, gross in lines:
        assert desk.posted(payee) == gross - fee(Qu(gross), bps)


@settings(**HUNDRED)
@given(
    gross=st.lists(st.integers(1, 10**9), min_size=1, max_size=4),
    share=st.floats(0, 1),
    bps=st.sampled_from((0, 250, 10_000)),
    running=st.booleans(),
)
def test_a_ruling_is_paid_to_the_unit_and_the_fee_falls_on_the_payees_part_alone(
    desk: Desk, gross: list[int], share: float, bps: int, running: bool
) -> None:
    total = sum(gross)
    to_payee = int(total * share)
    payer, arbiter, payees = desk.person(total), desk.person(roles=["arbiter"]), [desk.person() for _ in gross]
    lines = [(str(i), payee, part) for i, (payee, part) in enumerate(zip(payees, gross, strict=True))]
    escrow = desk.locked(payer, total)
    dispute = "SELECT dispute($1, $2, 'the model is noise')"
    rule = "SELECT rule($1, $2, $3, 'seen')"
    if running:
        assert desk.value(WEB, dispute, escrow, payer) == 0
        assert desk.settle(escrow, Outcome.COMPLETED, lines, bps=bps) is Code.WAITING
        assert desk.value(WEB, rule, escrow, arbiter, to_payee) == 0
        assert desk.settle(escrow, Outcome.COMPLETED, lines, bps=bps) is Code.DONE
        desk.mature([transfer_id(escrow, f"line/{line}") for line, _, _ in lines])
    else:
        assert desk.settle(escrow, Outcome.COMPLETED, lines, bps=bps, window_s=LONG_S) is Code.DONE
        assert desk.value(WEB, dispute, escrow, payer) == 0
        assert set(desk.mature(ids("line", list(lines), escrow))) == {Code.WRONG_STATE}
        resolve = "SELECT resolve($1, make_interval(days => 14))"
        assert desk.value(CONTROLLER, resolve, transfer_id(escrow, "line/0")) == Code.NOT_DUE
        assert desk.value(WEB, rule, escrow, arbiter, to_payee) == 0
        for earning in ids("line", list(lines), escrow):
            assert [desk.value(CONTROLLER, resolve, earning) for _ in range(2)] == [0, 1]
    parts = ruled_shares(Qu(to_payee), [Qu(part) for part in gross])
    assert [desk.posted(payee) for payee in payees] == [part - fee(part, bps) for part in parts]
    assert desk.posted(payer) == total - to_payee


@settings(**HUNDRED)
@given(total=st.integers(0, 2**62), weights=st.lists(st.integers(0, 2**60), max_size=5))
def test_the_database_shares_a_ruling_as_the_model_does(desk: Desk, total: int, weights: list[int]) -> None:
    total = min(total, sum(weights))
    found = [desk.value(OWNER, "SELECT share_of($1, $2, $3, $4)", total, sum(weights[:i]), w, sum(weights)) for i, w in enumerate(weights)]
    assert found == list(ruled_shares(Qu(total), [Qu(w) for w in weights]))


def test_the_database_allows_exactly_the_ways_of_the_models_tables(desk: Desk) -> None:
    triggers = {
        row["name"]: row["definition"].replace(" ON public.", " ON pg_temp.")
        for row in desk.rows(
            "SELECT tgname AS name, pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgname ~ '^(escrows|earnings)_way$'"
        )
    }

    def way(table: str, before: str, after: str) -> bool:
        desk.value(OWNER, f"CREATE TEMPORARY TABLE {table} (state text)")
        try:
            desk.value(OWNER, f"INSERT INTO pg_temp.{table} VALUES ('{before}')")
            desk.value(OWNER, triggers[f"{table}_way"])
            desk.value(OWNER, f"UPDATE pg_temp.{table} SET state = '{after}'")
        except asyncpg.RestrictViolationError:
            return False
        finally:
            desk.value(OWNER, f"DROP TABLE pg_temp.{table}")
        return True

    for before in EscrowState:
        assert {after for after in EscrowState if after is not before and way("escrows", before, after)} == ESCROW_WAYS[before]
    for start in EarningState:
        assert {end for end in EarningState if end is not start and way("earnings", start, end)} == EARNING_WAYS[start]


@pytest.mark.parametrize(
    "broken",
    [
        {"outcome": "WON"},
        {"lines": (("a", 5), ("a", 5))},
        {"lines": (("", 5),)},
        {"lines": (("a", -1),)},
        {"lines": (("a", 60), ("b", 41))},
        {"lines": (("a", 2**63 - 1), ("b", 2**63 - 1))},
        {"bps": 10_001},
        {"bps": -1},
        {"window_s": -1.0},
    ],
)
def test_a_settlement_that_makes_no_sense_is_refused_and_changes_nothing(desk: Desk, broken: dict[str, Any]) -> None:
    payer, payee = desk.person(100), desk.person()
    escrow = desk.locked(payer, 100)
    lines = [(line, payee, gross) for line, gross in broken.get("lines", ())]
    rest = {name: value for name, value in broken.items() if name in ("bps", "window_s")}
    assert desk.settle(escrow, broken.get("outcome", "COMPLETED"), lines, **rest) is Code.OUT_OF_RANGE
    assert desk.settle(escrow, "COMPLETED", [("a", uuid4(), 5)]) is Code.NO_WALLET
    assert desk.value(OWNER, "SELECT state FROM escrows WHERE id = $1", escrow) == "LOCKED"
    assert desk.settle(escrow, "FAILED", []) is Code.DONE
    assert desk.posted(payer) == 100


def test_nobody_judges_their_own_case(desk: Desk) -> None:
    payer, payee, other = (desk.person(100, roles=["arbiter"]) for _ in range(3))
    rule = "SELECT rule($1, $2, 0, 'because')"
    settled, running = desk.locked(payer, 50), desk.locked(payer, 50)
    assert desk.value(WEB, rule, settled, other) == Code.WRONG_STATE, "nothing is disputed"
    assert desk.settle(settled, "COMPLETED", [("a", payee, 50)], window_s=LONG_S) is Code.DONE
    assert desk.value(WEB, "SELECT dispute($1, $2, 'no')", running, payer) == 0
    assert desk.value(WEB, "SELECT dispute($1, $2, 'no')", settled, payer) == 0
    assert desk.value(WEB, "SELECT dispute($1, $2, 'no')", settled, payee) == Code.UNKNOWN
    # Before the job ends nobody knows that the payee is one.
    assert {desk.value(WEB, rule, running, judge) for judge in (payee, other)} == {Code.WRONG_STATE}
    assert desk.settle(running, "COMPLETED", [("a", payee, 50)]) is Code.WAITING
    for escrow in (settled, running):
        assert desk.value(WEB, rule, escrow, payer) == Code.NOT_ALLOWED
        assert desk.value(WEB, rule, escrow, payee) == Code.NOT_ALLOWED
        assert desk.value(WEB, rule, escrow, desk.person()) == Code.NOT_ALLOWED
        assert desk.value(WEB, rule, escrow, other) == Code.DONE
        assert desk.value(WEB, rule, escrow, other) == Code.DONE_ALREADY


def test_without_a_ruling_in_time_everything_is_paid_as_metered(desk: Desk) -> None:
    payer, payee = desk.person(100), desk.person()
    running, settled = desk.locked(payer, 50), desk.locked(payer, 50)
    assert desk.value(WEB, "SELECT dispute($1, $2, 'no')", running, payer) == 0
    assert desk.settle(running, "CANCELLED", [("a", payee, 20)]) is Code.WAITING
    assert desk.settle(running, "CANCELLED", [("a", payee, 21)]) is Code.OTHER_CONTENT
    assert desk.settle(running, "CANCELLED", [("a", payee, 20)], decision_s=0) is Code.DONE
    assert desk.settle(settled, "COMPLETED", [("a", payee, 30)], window_s=LONG_S) is Code.DONE
    assert desk.value(WEB, "SELECT dispute($1, $2, 'no')", settled, payer) == 0
    assert desk.value(CONTROLLER, "SELECT resolve($1, interval '0')", transfer_id(settled, "line/a")) == Code.DONE
    assert desk.mature([transfer_id(running, "line/a")]) == [Code.DONE]
    assert (desk.posted(payer), desk.posted(payee)) == (50, 50)


def test_when_the_window_is_over_nothing_can_be_disputed(desk: Desk) -> None:
    payer, payee = desk.person(100), desk.person()
    escrow = desk.locked(payer, 100)
    assert desk.settle(escrow, "COMPLETED", [("a", payee, 100)], window_s=0) is Code.DONE
    assert desk.value(WEB, "SELECT dispute($1, $2, 'too late')", escrow, payer) == Code.WRONG_STATE


def test_a_mature_batch_answers_for_each_item(desk: Desk) -> None:
    payer, payee = desk.person(100), desk.person()
    due, early = desk.locked(payer, 10), desk.locked(payer, 10)
    desk.settle(due, "COMPLETED", [("a", payee, 10)])
    desk.settle(early, "COMPLETED", [("a", payee, 10)], window_s=LONG_S)
    first, second = transfer_id(due, "line/a"), transfer_id(early, "line/a")
    assert desk.mature([uuid4(), first, second, first]) == [Code.UNKNOWN, Code.DONE, Code.NOT_DUE, Code.DONE_ALREADY]
    assert desk.posted(payee) == 10
    assert desk.mature([]) == []
