"""The receiving rules: what is a payment to us, when it is credited, and what a payer is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import Balance, QuTransfer, TickData, TickInterval, Transfers
from qubix.treasury.receiving import (
    Credit,
    Doubt,
    Doubtful,
    NotYet,
    Payment,
    Scan,
    SecondProof,
    Shown,
    Wait,
    after_skip,
    confirmations_after,
    expected_wait_s,
    is_whole,
    judge,
    next_scan,
    payments_in,
    proved,
)
from tests.unit.treasury.chain import ALICE, BOB, HOUSE, PAYER, TICK, pay, shown

OURS = frozenset({ALICE.identity, BOB.identity})
QUTIL = identity.encode(qutil.ADDRESS)
DIRECT = pay(PAYER, ALICE.public_key, 50, b"qubix:job:1")
MANY = qutil.send_many(
    PAYER.public_key,
    [(HOUSE.public_key, 1), (ALICE.public_key, 20), (BOB.public_key, 30), (ALICE.public_key, 20)],
    tick=TICK,
    fee=10,
).signed_by(PAYER.subseed)


def logs(tx_id: str, *moves: tuple[str, str, int], complete: bool = True) -> dict[str, Transfers]:
    return {tx_id: Transfers(tx_id, tuple(QuTransfer(*move) for move in moves), complete)}


def second(
    transfers: dict[str, Transfers] | None = None, *, log_tick: int = TICK + 3, incoming: int | None = None, credited: int = 0
) -> SecondProof:
    balances = {} if incoming is None else {ALICE.identity: Balance(ALICE.identity, 0, TICK + 1, incoming, 0, 1, 0, TICK, 0)}
    return SecondProof(log_tick, transfers or {}, balances, {ALICE.identity: credited})


def test_a_direct_payment_to_us_is_found_with_its_memo() -> None:
    (found,) = payments_in([shown(DIRECT), shown(pay(PAYER, HOUSE.public_key, 9))], OURS)
    assert found == Payment(DIRECT.id, 0, ALICE.identity, 50, TICK, PAYER.identity, PAYER.identity, True, True, b"qubix:job:1")


def test_a_send_many_pays_each_of_ours_by_its_place() -> None:
    found = payments_in([shown(MANY)], OURS)
    assert [(payment.place, payment.address, payment.amount) for payment in found] == [
        (1, ALICE.identity, 20),
        (2, BOB.identity, 30),
        (3, ALICE.identity, 20),
    ]
    assert {payment.sender for payment in found} == {QUTIL}
    assert len({payment.key for payment in found}) == 3


def test_nothing_else_is_a_payment() -> None:
    call = replace(MANY, input_type=2, signature=b"").signed_by(PAYER.subseed)
    short = replace(MANY, payload=MANY.payload[:-1], signature=b"").signed_by(PAYER.subseed)
    poor = replace(MANY, amount=5, signature=b"").signed_by(PAYER.subseed)
    for other in (call, short, poor, pay(PAYER, ALICE.public_key, 0), pay(ALICE, PAYER.public_key, 5)):
        assert payments_in([shown(other)], OURS) == ()


def test_a_transaction_that_is_listed_twice_pays_once() -> None:
    assert len(payments_in([shown(DIRECT), shown(MANY), shown(DIRECT), shown(MANY)], OURS)) == 4


def test_a_twin_under_another_signature_is_flagged() -> None:
    other = replace(shown(DIRECT), id="a" * 60)
    first, twin = payments_in([shown(DIRECT), other], OURS)
    assert first.twin is None
    assert twin.twin == DIRECT.id
    assert not twin.genuine


def test_fields_that_do_not_make_the_id_are_never_credited() -> None:
    (payment,) = payments_in([replace(shown(DIRECT), amount=5_000)], OURS)
    (judged,) = judge([payment], second(logs(DIRECT.id, (PAYER.identity, ALICE.identity, 5_000)), incoming=9_999))
    assert isinstance(judged, Doubtful)


MOVE = (PAYER.identity, ALICE.identity, 50)
CASES: list[tuple[str, bool | None, SecondProof, type | None]] = [
    ("flown, event", True, second(logs(DIRECT.id, MOVE)), Credit),
    ("flown, event, nothing else known yet", True, second(logs(DIRECT.id, MOVE), log_tick=0), Credit),
    ("flown, counter covers it", True, second(incoming=50), Credit),
    ("flown, counter covers it and what came before", True, second(incoming=150, credited=100), Credit),
    ("flown, counter covers only what came before", True, second(incoming=100, credited=100), NotYet),
    ("flown, nothing else", True, second(), NotYet),
    ("flown, the log does not reach so far", True, second(logs(DIRECT.id), log_tick=TICK + 2), NotYet),
    ("flown, half a log", True, second(logs(DIRECT.id, complete=False)), NotYet),
    ("flown, no event", True, second(logs(DIRECT.id)), Doubtful),
    ("flown, no event, though the counter covers it", True, second(logs(DIRECT.id), incoming=50), Doubtful),
    ("flown, event of another amount", True, second(logs(DIRECT.id, (PAYER.identity, ALICE.identity, 49))), Doubtful),
    ("flown, event to another payee", True, second(logs(DIRECT.id, (PAYER.identity, BOB.identity, 50))), Doubtful),
    ("not flown", False, second(incoming=50), None),
    ("not flown, no event", False, second(logs(DIRECT.id)), None),
    ("not flown, event", False, second(logs(DIRECT.id, MOVE)), Doubtful),
    ("not said, event", None, second(logs(DIRECT.id, MOVE)), Doubtful),
    ("not said", None, second(incoming=50), None),
]


@pytest.mark.parametrize(("flew", "known", "due"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_payment_is_credited_when_the_archive_and_something_else_agree(flew: bool | None, known: SecondProof, due: type | None) -> None:
    judged = judge(payments_in([shown(DIRECT, money_flew=flew)], OURS), known)
    assert [type(judgement) for judgement in judged] == ([due] if due else [])


def test_a_counter_from_the_payments_own_tick_or_before_proves_nothing() -> None:
    early = second(incoming=50)
    early.balances[ALICE.identity] = replace(early.balances[ALICE.identity], valid_for_tick=TICK)
    assert [type(judgement) for judgement in judge(payments_in([shown(DIRECT)], OURS), early)] == [NotYet]


def test_two_equal_payments_need_two_events() -> None:
    payments = payments_in([shown(MANY)], OURS)
    one = judge(payments, second(logs(MANY.id, (QUTIL, ALICE.identity, 20), (QUTIL, BOB.identity, 30))))
    assert [type(judgement) for judgement in one] == [Credit, Credit, Doubtful]
    both = judge(payments, second(logs(MANY.id, (QUTIL, ALICE.identity, 20), (QUTIL, BOB.identity, 30), (QUTIL, ALICE.identity, 20))))
    assert [type(judgement) for judgement in both] == [Credit, Credit, Credit]


def test_a_send_many_that_the_contract_gave_back_is_dropped() -> None:
    there, back = (PAYER.identity, QUTIL, 81), (QUTIL, PAYER.identity, 81)
    payments = payments_in([shown(MANY)], OURS)
    assert judge(payments, second(logs(MANY.id, there, back))) == ()
    early = judge(payments, second(logs(MANY.id, there, back), log_tick=TICK + 2))
    assert {type(judgement) for judgement in early} == {NotYet}


@pytest.mark.parametrize("back", [[], [("QUTIL", "PAYER", 80)], [("QUTIL", "BOB", 81)], [("QUTIL", "PAYER", 81), ("QUTIL", "PAYER", 81)]])
def test_a_send_many_that_was_not_given_back_whole_is_shown_to_a_person(back: list[tuple[str, str, int]]) -> None:
    names = {"QUTIL": QUTIL, "PAYER": PAYER.identity, "BOB": "B" * 60}
    moves = [(PAYER.identity, QUTIL, 81), *((names[source], names[payee], amount) for source, payee, amount in back)]
    assert {type(one) for one in judge(payments_in([shown(MANY)], OURS), second(logs(MANY.id, *moves)))} == {Doubtful}


@given(
    st.lists(st.tuples(st.sampled_from([DIRECT, MANY, pay(PAYER, ALICE.public_key, 7)]), st.sampled_from([True, False, None])), max_size=4),
    st.lists(
        st.sampled_from([MOVE, (QUTIL, ALICE.identity, 20), (QUTIL, BOB.identity, 30), (PAYER.identity, ALICE.identity, 7)]), max_size=5
    ),
    st.integers(TICK, TICK + 5),
    st.integers(0, 200) | st.none(),
    st.integers(0, 60),
)
@settings(max_examples=100, deadline=None)
def test_p_a08_credits_never_exceed_what_the_second_proofs_cover(
    listed: list[tuple[object, bool | None]], moves: list[tuple[str, str, int]], log_tick: int, incoming: int | None, credited: int
) -> None:
    payments = payments_in([shown(signed, money_flew=flew) for signed, flew in listed], OURS)  # type: ignore[arg-type]
    events = {tx_id: found for payment in payments for tx_id, found in logs(payment.tx_id, *moves).items()}
    credits = [
        judgement
        for judgement in judge(payments, second(events, log_tick=log_tick, incoming=incoming, credited=credited))
        if isinstance(judgement, Credit)
    ]
    assert len({credit.payment.key for credit in credits}) == len(credits)
    assert all(credit.payment.money_flew and credit.payment.genuine for credit in credits)
    for tx_id in events:
        by_event = [credit.payment for credit in credits if credit.proof == "event log" and credit.payment.tx_id == tx_id]
        claimed = [(payment.sender, payment.address, payment.amount) for payment in by_event]
        assert all(claimed.count(move) <= moves.count(move) for move in claimed)
    by_counter = sum(credit.payment.amount for credit in credits if credit.proof == "incoming counter")
    assert not by_counter or credited + by_counter <= (incoming or 0)


def test_ticks_are_read_one_by_one_as_soon_as_they_are_final() -> None:
    assert next_scan(99, 103) == Scan(100)
    assert next_scan(99, 102) == Wait(103)


INTERVALS = (TickInterval(227, 1, 100), TickInterval(228, 150, 200))


@pytest.mark.parametrize(
    ("tick", "next_tick", "cursor"),
    [(101, 150, 149), (120, 150, 149), (101, 140, 139), (101, 151, None), (90, 150, None), (201, 300, None)],
)
def test_a_skip_is_believed_as_far_as_the_intervals_say_so(tick: int, next_tick: int, cursor: int | None) -> None:
    found = after_skip(tick, next_tick, INTERVALS)
    assert found == cursor if cursor is not None else isinstance(found, Doubt)


def test_a_list_is_whole_when_it_has_what_was_signed_for_the_tick() -> None:
    signed = TickData(TICK, 227, frozenset({DIRECT.id, MANY.id}), 0)
    assert is_whole([shown(MANY), shown(DIRECT), shown(DIRECT)], signed)
    assert not is_whole([shown(DIRECT)], signed)
    assert not is_whole([], signed)
    assert is_whole([], None)
    assert not is_whole([shown(DIRECT)], None)


@pytest.mark.parametrize(
    ("processed", "found", "flown", "proof", "count"),
    [
        (TICK + 9, False, True, True, 0),
        (TICK + 9, True, False, True, 0),
        (TICK, True, True, True, 0),
        (TICK + 1, True, True, False, 1),
        (TICK + 2, True, True, True, 2),
        (TICK + 3, True, True, False, 2),
        (TICK + 9, True, True, False, 2),
        (TICK + 3, True, True, True, 3),
    ],
)
def test_p_b21_the_third_confirmation_needs_every_proof(processed: int, found: bool, flown: bool, proof: bool, count: int) -> None:
    assert proved(Shown(processed, TICK, found, flown, proof)) == count


@st.composite
def _chain_and_looks(draw: st.DrawFn) -> list[tuple[int, Shown]]:
    """The archive's true tick at each moment, and what an endpoint that is behind, or forgets, shows of it."""
    true_tick, looks = TICK - 5, []
    for _ in range(draw(st.integers(1, 15))):
        true_tick += draw(st.integers(0, 3))
        seen = true_tick - draw(st.integers(0, 6))
        found = seen >= TICK and draw(st.booleans())
        looks.append((true_tick, Shown(seen, TICK, found, draw(st.booleans()), true_tick >= TICK and draw(st.booleans()))))
    return looks


@given(_chain_and_looks())
@settings(max_examples=100, deadline=None)
def test_p_b21_the_count_is_never_ahead_of_the_proofs_and_never_falls(looks: list[tuple[int, Shown]]) -> None:
    count, complete = 0, False
    for true_tick, look in looks:
        before, count = count, confirmations_after(count, look)
        complete |= look.found and look.flown and look.second_proof and look.processed >= TICK + 3
        assert before <= count <= max(0, min(3, true_tick - TICK))
        assert (count == 3) is complete


@given(_chain_and_looks())
@settings(max_examples=100, deadline=None)
def test_p_b36_every_proof_that_is_shown_is_counted_at_once(looks: list[tuple[int, Shown]]) -> None:
    count = 0
    for _, look in looks:
        count = confirmations_after(count, look)
        assert count >= proved(look)


def test_the_expected_wait_is_the_ticks_that_are_left() -> None:
    assert expected_wait_s(TICK, TICK - 20, 1.0) == 23
    assert expected_wait_s(TICK, TICK + 1, 1.5) == 3
    assert expected_wait_s(TICK, TICK + 50, 1.0) == 0
