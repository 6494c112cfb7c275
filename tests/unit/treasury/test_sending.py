"""The sending rules: when to sign, when to send again, and what became of a payment."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import identity
from qubix.chains.qubic.answers import ArchivedTransaction, LastProcessed, QuTransfer, TickInfo, TickInterval
from qubix.chains.qubic.errors import InvalidIdentity
from qubix.treasury.sending import (
    Cause,
    Counters,
    Dead,
    EpochWatch,
    Hold,
    Moved,
    NotPayable,
    Observed,
    Outgoing,
    Pending,
    Rules,
    Settled,
    Sighting,
    Sign,
    Signed,
    Unknown,
    is_advancing,
    is_broadcast_due,
    is_held_back,
    is_in_reach,
    net_of_refund,
    payee,
    plan,
    verdict,
    watch,
)
from tests.unit.treasury.chain import ALICE, BOB, HOUSE, TICK, pay, shown

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
TRANSACTION = pay(HOUSE, ALICE.public_key, 700, b"intent")
OTHER = pay(HOUSE, BOB.public_key, 700)
BEFORE, AFTER = Counters(4, 9_000), Counters(5, 9_700)
SIGNED = Signed(TRANSACTION.id, HOUSE.identity, ALICE.identity, 700, TICK, BEFORE, payload=b"intent")
FLOWN, NOT_FLOWN, UNSAID = (shown(TRANSACTION, money_flew=flew) for flew in (True, False, None))
INTERVALS = (TickInterval(227, 1, TICK + 50),)
GAP = (TickInterval(227, 1, TICK - 1), TickInterval(228, TICK + 9, TICK + 50))
MOVE = QuTransfer(HOUSE.identity, ALICE.identity, 700)


def look(
    endpoint: str = "a", *, at_s: float = 0, processed: int = TICK + 3, found: ArchivedTransaction | None = None, **told: object
) -> Sighting:
    listed = () if found is None else (found,)
    sighting = Sighting(endpoint, NOW + dt.timedelta(seconds=at_s), processed, found, listed)
    return replace(sighting, **told)  # type: ignore[arg-type]


def sent(counters: Counters, endpoint: str = "a", valid_for_tick: int = TICK + 3) -> Outgoing:
    return Outgoing(endpoint, valid_for_tick, counters)


def observed(*sightings: Sighting, outgoing: tuple[Outgoing, ...] = (), **told: object) -> Observed:
    return replace(Observed(TICK + 6, TICK + 3, INTERVALS, sightings, outgoing), **told)  # type: ignore[arg-type]


TWICE = (look(), look(at_s=30))
BOTH = (look("a"), look("b"))
BOTH_BEFORE, BOTH_AFTER = ((sent(counters, "a"), sent(counters, "b")) for counters in (BEFORE, AFTER))
QUIET = Moved("a", TICK + 3, ())

VERDICTS = [
    ("the head is not past the tick", observed(look(found=FLOWN), outgoing=(sent(AFTER),), head=TICK), Pending),
    ("the archive is two ticks past", observed(look(found=FLOWN), outgoing=(sent(AFTER),), processed=TICK + 2), Pending),
    ("found, flown, counters rose", observed(look(found=FLOWN), outgoing=(sent(AFTER),)), Settled),
    ("found, flown, no balance yet", observed(look(found=FLOWN)), Unknown),
    ("found, flown, balance from before", observed(look(found=FLOWN), outgoing=(sent(AFTER, valid_for_tick=TICK),)), Unknown),
    ("found, flown, counters unchanged", observed(look(found=FLOWN), outgoing=(sent(BEFORE),)), Unknown),
    ("found, flown, counters rose twice", observed(look(found=FLOWN), outgoing=(sent(Counters(6, 10_400)),)), Unknown),
    ("found, flown, rose by another amount", observed(look(found=FLOWN), outgoing=(sent(Counters(5, 9_701)),)), Unknown),
    ("found, not said whether flown", observed(look(found=UNSAID), outgoing=(sent(AFTER),)), Unknown),
    (
        "found under our id with another payee",
        observed(look(found=replace(FLOWN, destination=BOB.identity)), outgoing=(sent(AFTER),)),
        Unknown,
    ),
    ("found in another tick", observed(look(found=replace(FLOWN, tick=TICK + 1)), outgoing=(sent(AFTER),)), Unknown),
    ("found, not flown, all agree", observed(look(found=NOT_FLOWN), outgoing=(sent(BEFORE),), moved=(QUIET,)), Dead),
    ("found, not flown, counters rose", observed(look(found=NOT_FLOWN), outgoing=(sent(AFTER),), moved=(QUIET,)), Unknown),
    ("found, not flown, no event log", observed(look(found=NOT_FLOWN), outgoing=(sent(BEFORE),)), Unknown),
    (
        "found, not flown, log too early",
        observed(look(found=NOT_FLOWN), outgoing=(sent(BEFORE),), moved=(replace(QUIET, log_tick=TICK + 2),)),
        Unknown,
    ),
    (
        "found, not flown, half a log",
        observed(look(found=NOT_FLOWN), outgoing=(sent(BEFORE),), moved=(replace(QUIET, complete=False),)),
        Unknown,
    ),
    ("found, not flown, event", observed(look(found=NOT_FLOWN), outgoing=(sent(BEFORE),), moved=(Moved("a", TICK + 3, (MOVE,)),)), Unknown),
    ("absent twice, 30 s apart", observed(*TWICE, outgoing=(sent(BEFORE),)), Dead),
    ("absent twice, 29 s apart", observed(look(), look(at_s=29), outgoing=(sent(BEFORE),)), Unknown),
    ("absent once", observed(look(), outgoing=(sent(BEFORE),)), Unknown),
    (
        "absent, but asked too early",
        observed(look(processed=TICK + 2), look(processed=TICK + 2, at_s=60), outgoing=(sent(BEFORE),)),
        Unknown,
    ),
    ("absent, tick list not answered", observed(look(listed=None), look(at_s=30, listed=None), outgoing=(sent(BEFORE),)), Unknown),
    ("absent, but in the tick's list", observed(*TWICE, look(at_s=40, listed=(FLOWN,)), outgoing=(sent(BEFORE),)), Unknown),
    ("absent, but in the tick data", observed(*TWICE, look(at_s=40, hashes=frozenset({SIGNED.tx_id})), outgoing=(sent(BEFORE),)), Unknown),
    ("absent, no balance", observed(*TWICE), Unknown),
    ("absent, balance from before", observed(*TWICE, outgoing=(sent(BEFORE, valid_for_tick=TICK),)), Unknown),
    ("absent, money left", observed(*TWICE, outgoing=(sent(AFTER),)), Unknown),
    ("absent, event", observed(*TWICE, outgoing=(sent(BEFORE),), moved=(Moved("a", TICK + 3, (MOVE,)),)), Unknown),
    ("absent, tick in no interval", observed(*TWICE, outgoing=(sent(BEFORE),), intervals=()), Unknown),
    ("absent by both endpoints", observed(*BOTH, outgoing=BOTH_BEFORE, endpoints=2), Dead),
    ("absent by one of two, often", observed(*TWICE, outgoing=BOTH_BEFORE, endpoints=2), Unknown),
    ("absent by both, one balance", observed(*BOTH, outgoing=(sent(BEFORE),), endpoints=2), Unknown),
    ("absent by both, balances differ", observed(*BOTH, outgoing=(sent(BEFORE), sent(AFTER, "b")), endpoints=2), Unknown),
    ("one finds it, one does not", observed(look(found=FLOWN), look("b"), outgoing=BOTH_AFTER, endpoints=2), Unknown),
    (
        "one did not find it at first",
        observed(look("b"), look(found=FLOWN), look("b", found=FLOWN), outgoing=BOTH_AFTER, endpoints=2),
        Settled,
    ),
    ("it was there and is gone", observed(look(found=FLOWN), look(at_s=30), look(at_s=60), outgoing=(sent(BEFORE),)), Unknown),
    (
        "two archives, one with flown bits",
        observed(look(found=FLOWN), look("b", found=NOT_FLOWN), outgoing=BOTH_AFTER, endpoints=2),
        Settled,
    ),
    ("the tick was skipped", observed(look(skipped=True), look(skipped=True, at_s=30), outgoing=(sent(BEFORE),), intervals=GAP), Dead),
    ("skipped, seen once", observed(look(skipped=True), outgoing=(sent(BEFORE),), intervals=GAP), Unknown),
    ("skipped, money left", observed(look(skipped=True), look(skipped=True, at_s=30), outgoing=(sent(AFTER),), intervals=GAP), Unknown),
    ("skipped, but in an interval", observed(look(skipped=True), look(skipped=True, at_s=30), outgoing=(sent(BEFORE),)), Unknown),
    ("skipped by one of two", observed(look(skipped=True), look("b"), outgoing=BOTH_BEFORE, endpoints=2, intervals=GAP), Unknown),
    ("a stranger in the tick", observed(look(listed=(shown(OTHER),)), look(at_s=30), outgoing=(sent(BEFORE),)), Unknown),
    ("settled, and a stranger beside it", observed(look(found=FLOWN, listed=(FLOWN, shown(OTHER))), outgoing=(sent(AFTER),)), Unknown),
]


@pytest.mark.parametrize(("seen", "due"), [case[1:] for case in VERDICTS], ids=[case[0] for case in VERDICTS])
def test_the_verdict_is_what_the_evidence_says(seen: Observed, due: type) -> None:
    assert type(verdict(SIGNED, seen)) is due


@pytest.mark.parametrize(
    ("name", "halt"),
    [
        ("absent, money left", True),
        ("absent, event", True),
        ("a stranger in the tick", True),
        ("settled, and a stranger beside it", True),
        ("found, flown, counters rose twice", True),
        ("absent once", False),
        ("found, flown, no balance yet", False),
    ],
)
def test_money_that_moved_without_an_explanation_halts_the_wallet(name: str, halt: bool) -> None:
    found = verdict(SIGNED, next(seen for case, seen, _ in VERDICTS if case == name))
    assert isinstance(found, Unknown)
    assert found.halt is halt


def test_a_death_names_its_cause() -> None:
    causes = {case: found.cause for case, seen, _ in VERDICTS if isinstance(found := verdict(SIGNED, seen), Dead)}
    assert causes == {
        "found, not flown, all agree": Cause.NOT_FLOWN,
        "absent twice, 30 s apart": Cause.NEVER_EXECUTED,
        "absent by both endpoints": Cause.NEVER_EXECUTED,
        "the tick was skipped": Cause.TICK_SKIPPED,
    }


def test_a_send_many_is_settled_when_the_contract_has_paid_each_one() -> None:
    many = replace(SIGNED, payments=((ALICE.identity, 300), (BOB.identity, 300)))
    seen = observed(look(found=FLOWN), outgoing=(sent(AFTER),))
    paid = (QuTransfer(ALICE.identity, BOB.identity, 300), QuTransfer(ALICE.identity, ALICE.identity, 300))
    assert isinstance(verdict(many, seen), Unknown)
    assert isinstance(verdict(many, replace(seen, moved=(Moved("a", TICK + 3, paid[:1]),))), Unknown)
    assert isinstance(
        verdict(many, replace(seen, moved=(Moved("a", TICK + 3, (QuTransfer(ALICE.identity, HOUSE.identity, 700),)),))), Unknown
    )
    assert isinstance(verdict(many, replace(seen, moved=(Moved("a", TICK + 3, (MOVE, *paid)),))), Settled)


ENDPOINTS = st.sampled_from(["a", "b"])
_sightings = st.builds(
    Sighting,
    ENDPOINTS,
    st.floats(0, 90).map(lambda s: NOW + dt.timedelta(seconds=s)),
    st.integers(TICK, TICK + 6),
    st.sampled_from([None, FLOWN, NOT_FLOWN, UNSAID]),
    st.sampled_from([None, (), (FLOWN,), (shown(OTHER),)]),
    st.sampled_from([None, frozenset(), frozenset({SIGNED.tx_id})]),
    st.booleans(),
)
_outgoing = st.builds(Outgoing, ENDPOINTS, st.integers(TICK - 1, TICK + 6), st.sampled_from([BEFORE, AFTER, Counters(5, 9_001)]))
_moved = st.builds(Moved, ENDPOINTS, st.integers(TICK, TICK + 6), st.sampled_from([(), (MOVE,)]), st.booleans())


@st.composite
def _honest(draw: st.DrawFn, executed: bool) -> Observed:
    """What honest endpoints may show, however late and incompletely."""
    sightings, outgoing, moved = [], [], []
    for endpoint, at_s, processed in draw(st.lists(st.tuples(ENDPOINTS, st.floats(0, 90), st.integers(TICK - 2, TICK + 9)), max_size=5)):
        here = executed and processed >= TICK + 3
        flew = draw(st.sampled_from([True, False, None]))  # even an honest archive does not know
        found = replace(FLOWN, money_flew=flew) if here else None
        listed = draw(st.sampled_from([None, (found,) if found else ()]))
        sightings.append(Sighting(endpoint, NOW + dt.timedelta(seconds=at_s), processed, found, listed))
    for endpoint, valid in draw(st.lists(st.tuples(ENDPOINTS, st.integers(TICK - 2, TICK + 9)), max_size=4)):
        outgoing.append(Outgoing(endpoint, valid, AFTER if executed and valid > TICK else BEFORE))
    for endpoint, log_tick in draw(st.lists(st.tuples(ENDPOINTS, st.integers(TICK - 2, TICK + 9)), max_size=3)):
        moved.append(Moved(endpoint, log_tick, (MOVE,) if executed and log_tick >= TICK else ()))
    return Observed(TICK + 9, TICK + 9, INTERVALS, tuple(sightings), tuple(outgoing), tuple(moved), draw(st.integers(1, 2)))


@given(st.booleans().flatmap(lambda executed: st.tuples(st.just(executed), _honest(executed))))
@settings(max_examples=150, deadline=None)
def test_p_a08_late_and_incomplete_evidence_never_makes_a_paid_one_dead_or_an_unpaid_one_settled(case: tuple[bool, Observed]) -> None:
    executed, seen = case
    assert not isinstance(verdict(SIGNED, seen), Dead if executed else Settled)


def _story(executed: bool) -> Observed:
    """All that one endpoint shows who tells, without a gap, that the payment was executed, or was not."""
    looks = (look(found=FLOWN), look(at_s=40, found=FLOWN)) if executed else (look(), look(at_s=40))
    counted, moved = sent(AFTER if executed else BEFORE), Moved("a", TICK + 3, (MOVE,) if executed else ())
    return observed(*looks, outgoing=(counted,), moved=(moved,))


def test_a_sole_endpoint_is_believed() -> None:
    assert isinstance(verdict(SIGNED, _story(True)), Settled)
    assert isinstance(verdict(SIGNED, _story(False)), Dead)


@given(
    st.booleans().flatmap(lambda executed: st.tuples(st.just(executed), _honest(executed))),
    st.booleans(),
    st.lists(_sightings, max_size=2),
    st.lists(_outgoing, max_size=2),
    st.lists(_moved, max_size=1),
)
@settings(max_examples=150, deadline=None)
def test_p_a08_one_lying_endpoint_of_two_pays_nothing_twice_and_nothing_into_the_void(
    case: tuple[bool, Observed], coherent: bool, looks: list[Sighting], counted: list[Outgoing], moved: list[Moved]
) -> None:
    executed, seen = case
    lie = _story(not executed) if coherent else Observed(0, 0)
    lies = Observed(
        TICK + 50,
        TICK + 50,
        INTERVALS,
        tuple(s for s in seen.sightings if s.endpoint == "b") + lie.sightings + tuple(replace(s, endpoint="a") for s in looks),
        tuple(o for o in seen.outgoing if o.endpoint == "b") + lie.outgoing + tuple(replace(o, endpoint="a") for o in counted),
        tuple(m for m in seen.moved if m.endpoint == "b") + lie.moved + tuple(replace(m, endpoint="a") for m in moved),
        endpoints=2,
    )
    assert not isinstance(verdict(SIGNED, lies), Dead if executed else Settled)


@given(
    st.lists(_sightings, max_size=5), st.lists(_outgoing, max_size=4), st.lists(_moved, max_size=2), st.integers(1, 3), st.integers(0, 6)
)
@settings(max_examples=100, deadline=None)
def test_before_the_archive_is_three_ticks_past_there_is_no_verdict(
    looks: list[Sighting], counted: list[Outgoing], moved: list[Moved], endpoints: int, ahead: int
) -> None:
    seen = Observed(TICK + 9, TICK + ahead, INTERVALS, tuple(looks), tuple(counted), tuple(moved), endpoints)
    if ahead < Rules().confirmations:
        assert isinstance(verdict(SIGNED, seen), Pending)
    else:
        assert not isinstance(verdict(SIGNED, seen), Pending)


def test_a_payment_is_aimed_twenty_ticks_ahead_and_never_beyond_reach() -> None:
    head, seen = TickInfo(500, 227, 1, 1), EpochWatch(227, NOW)
    assert plan(head, NOW, seen) == Sign(520)
    assert [is_in_reach(tick, 500) for tick in (509, 510, 520, 800, 801)] == [False, True, True, True, False]
    for lead in (9, 301):
        with pytest.raises(ValueError, match="10 to 300"):
            plan(head, NOW, seen, lead=lead)


@pytest.mark.parametrize(
    ("head", "since_s", "due"), [(500, None, True), (516, 2.5, True), (516, 2.4, False), (517, 99, False), (600, None, False)]
)
def test_the_same_bytes_go_out_again_until_three_ticks_before_their_own(head: int, since_s: float | None, due: bool) -> None:
    assert is_broadcast_due(520, head, since_s) is due


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"2026-11-{text}:00+00:00")


@pytest.mark.parametrize(
    ("now", "advanced_at", "held"),
    [
        ("24T23:00", at("18T12:31"), False),
        ("25T11:49", at("18T12:31"), False),
        ("25T11:50", at("18T12:31"), True),
        ("25T13:40", at("18T12:31"), True),
        ("26T09:00", at("18T12:31"), True),
        ("25T12:31", at("25T12:30"), False),
        ("25T12:31", None, True),
    ],
)
def test_nothing_is_signed_from_wednesday_until_the_new_epoch_advances(now: str, advanced_at: dt.datetime | None, held: bool) -> None:
    assert is_held_back(at(now), EpochWatch(227, advanced_at)) is held
    assert isinstance(plan(TickInfo(500, 227, 1, 1), at(now), EpochWatch(227, advanced_at), weekly=False), Sign)


def test_a_payment_that_would_execute_in_the_window_is_held_before_it_opens() -> None:
    seen = EpochWatch(227, at("18T12:31"))
    just_before = at("25T11:49") + dt.timedelta(seconds=45)
    assert isinstance(plan(TickInfo(500, 227, 1, 1), just_before, seen), Hold)
    assert isinstance(plan(TickInfo(500, 227, 1, 5), at("25T11:49"), seen), Hold)
    assert isinstance(plan(TickInfo(500, 227, 1, 1), at("25T11:49"), seen), Sign)


def test_the_new_epoch_is_seen_when_the_archive_advances_in_it() -> None:
    old = EpochWatch(227, at("18T12:31"))
    assert watch(old, LastProcessed(900, 227, 1, 900), at("25T12:05")) == old
    assert watch(old, LastProcessed(1_000, 228, 1_000, 900), at("25T12:20")) == old
    assert watch(old, LastProcessed(1_001, 228, 1_000, 900), at("25T12:21")) == EpochWatch(228, at("25T12:21"))


def test_a_first_look_within_the_window_does_not_take_the_old_epoch_for_the_new_one() -> None:
    first = watch(None, LastProcessed(900, 227, 1, 900), at("25T11:55"))
    assert is_held_back(at("25T11:56"), first)
    assert not is_held_back(at("25T12:40"), watch(first, LastProcessed(1_001, 228, 1_000, 900), at("25T12:40")))
    assert not is_held_back(at("27T09:00"), watch(None, LastProcessed(1_001, 228, 1_000, 900), at("27T09:00")))


def test_an_archive_that_stands_still_is_ill_unless_the_epoch_changes() -> None:
    seen = EpochWatch(227, at("18T12:31"))
    assert is_advancing(at("20T10:00"), at("20T10:01"), seen)
    assert not is_advancing(at("20T10:00"), at("20T10:02"), seen)
    assert is_advancing(at("25T11:59"), at("25T12:40"), seen)
    assert not is_advancing(at("25T12:40"), at("25T12:50"), EpochWatch(228, at("25T12:35")))


def test_a_payout_goes_to_somebody_who_can_hold_the_key() -> None:
    assert payee(ALICE.identity) == ALICE.public_key
    with pytest.raises(InvalidIdentity):
        payee(ALICE.identity[:-1] + ("A" if ALICE.identity[-1] != "A" else "B"))
    with pytest.raises(NotPayable, match="burned"):
        payee(identity.encode(identity.NULL))
    with pytest.raises(NotPayable, match="contract"):
        payee(identity.encode(identity.contract(4)))
    with pytest.raises(NotPayable, match="nobody"):
        payee(identity.encode(b"\xff" * 32))


BATCH = replace(SIGNED, payments=((ALICE.identity, 690),))
BACK = QuTransfer(ALICE.identity, HOUSE.identity, 700)


@pytest.mark.parametrize(
    ("moved", "after", "due"),
    [
        (Moved("a", TICK + 3, (MOVE, BACK)), AFTER, Dead),
        (Moved("a", TICK + 2, (MOVE, BACK)), AFTER, Unknown),
        (Moved("a", TICK + 3, (MOVE, BACK), complete=False), AFTER, Unknown),
        (Moved("a", TICK + 3, (MOVE, replace(BACK, amount=690))), AFTER, Unknown),
        (Moved("a", TICK + 3, (MOVE, BACK, MOVE)), AFTER, Unknown),
        (Moved("a", TICK + 3, (MOVE,)), AFTER, Unknown),
        (Moved("a", TICK + 3, (MOVE, BACK)), Counters(6, 10_400), Unknown),
    ],
    ids=["given back", "log too early", "half a log", "less given back", "paid again", "kept", "something else moved too"],
)
def test_a_send_many_that_was_given_back_whole_moved_nothing(moved: Moved, after: Counters, due: type) -> None:
    seen = observed(look(found=NOT_FLOWN), outgoing=(sent(after),), moved=(moved,))
    assert isinstance(verdict(BATCH, net_of_refund(BATCH, seen)), due)
    assert net_of_refund(SIGNED, seen) == seen, "a direct payment is never given back"


def test_one_of_two_endpoints_that_alone_shows_a_refund_proves_nothing() -> None:
    logs = (Moved("a", TICK + 3, (MOVE, BACK)), Moved("b", TICK + 3, (MOVE,)))
    seen = observed(*(look(name, found=NOT_FLOWN) for name in "ab"), outgoing=BOTH_AFTER, moved=logs, endpoints=2)
    assert isinstance(verdict(BATCH, net_of_refund(BATCH, seen)), Unknown)
