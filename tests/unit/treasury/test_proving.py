"""What proves that a payment which a restored backup does not know has paid, or has not; and that an archive's word alone proves neither."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import QuTransfer, TickInterval
from qubix.chains.qubic.transaction import Transaction
from qubix.treasury.proving import Chain, Judged, Link, judged, signed
from qubix.treasury.sending import Counters, Moved, Observed, Outgoing, Sighting
from tests.unit.treasury.chain import ALICE, BOB, HOUSE, TICK, pay, shown

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
BASE = Counters(4, 9_000)
FIRST = pay(HOUSE, ALICE.public_key, 700, tick=TICK)
SECOND = pay(HOUSE, BOB.public_key, 700, tick=TICK + 10)
LATE = TICK + 50


def link(sent: Transaction, *, raised: bool = True) -> Link:
    source, destination = (identity.encode(key) for key in (sent.source, sent.destination))
    return Link(sent.id, source, destination, sent.amount, sent.tick, sent.input_type, sent.payload, raised=raised, paid=None)


def chain(*links: Link, base_tick: int = TICK - 5, undecided: str = "") -> Chain:
    return Chain(BASE, base_tick, undecided, links)


def seen(sent: Transaction, *, flew: bool | None, counters: Counters, moved: bool) -> Observed:
    """What two endpoints show of it, long after its tick."""
    found = shown(sent, money_flew=flew)
    went = (QuTransfer(identity.encode(sent.source), identity.encode(sent.destination), sent.amount),) if moved else ()
    return Observed(
        LATE + 9,
        LATE + 6,
        (TickInterval(227, 1, LATE + 90),),
        tuple(Sighting(door, NOW, LATE + 6, found, (found,)) for door in "ab"),
        tuple(Outgoing(door, LATE, counters) for door in "ab"),
        tuple(Moved(door, LATE, went) for door in "ab"),
        endpoints=2,
    )


def paid(one: Judged) -> bool | None:
    return one.paid


ROSE_ONCE, ROSE_TWICE = Counters(5, 9_700), Counters(6, 10_400)


@pytest.mark.parametrize(
    ("flew", "counters", "moved", "expected"),
    [
        (True, ROSE_ONCE, True, True),
        (True, BASE, False, None),
        (True, ROSE_ONCE, False, None),
        (False, BASE, False, False),
        (False, ROSE_ONCE, True, None),
        (False, ROSE_ONCE, False, None),
        (False, BASE, True, None),
        (None, ROSE_ONCE, True, None),
        (True, ROSE_TWICE, True, None),
    ],
)
def test_the_archives_word_counts_only_with_the_wallets_counters_and_the_event_log(
    flew: bool | None, counters: Counters, moved: bool, expected: bool | None
) -> None:
    one = link(FIRST, raised=bool(flew))
    assert paid(judged(chain(one), one, seen(FIRST, flew=flew, counters=counters, moved=moved))) is expected


def test_each_of_several_payments_is_judged_by_what_came_before_and_after_it() -> None:
    both = chain(link(FIRST), link(SECOND))
    assert signed(both, both.links[1]).before == ROSE_ONCE
    for sent, one in zip((FIRST, SECOND), both.links, strict=True):
        assert paid(judged(both, one, seen(sent, flew=True, counters=ROSE_TWICE, moved=True))) is True
        assert paid(judged(both, one, seen(sent, flew=True, counters=ROSE_ONCE, moved=True))) is None, "one of the two has not paid"


def test_two_equal_payments_that_the_archive_takes_for_each_other_are_neither_paid_nor_unpaid() -> None:
    both = chain(link(FIRST, raised=True), link(SECOND, raised=False))
    told = [
        judged(both, both.links[0], seen(FIRST, flew=True, counters=ROSE_ONCE, moved=False)),
        judged(both, both.links[1], seen(SECOND, flew=False, counters=ROSE_ONCE, moved=True)),
    ]
    assert [one.paid for one in told] == [None, None]


def test_nothing_is_proved_of_what_is_older_than_the_last_payment_here_or_beside_one_that_is_undecided() -> None:
    one = link(FIRST)
    looked = seen(FIRST, flew=True, counters=ROSE_ONCE, moved=True)
    assert paid(judged(chain(one, base_tick=TICK), one, looked)) is None
    told = judged(chain(one, undecided="42"), one, looked)
    assert (told.paid, "payment 42" in told.reason) == (None, True)


def test_a_send_many_that_the_contract_gave_back_has_not_paid_and_yet_counts_for_those_after_it() -> None:
    many = qutil.send_many(HOUSE.public_key, [(ALICE.public_key, 500)], tick=TICK, fee=11).signed_by(HOUSE.subseed)
    there = QuTransfer(identity.encode(many.source), identity.encode(many.destination), many.amount)
    looked = seen(many, flew=False, counters=Counters(5, 9_511), moved=True)
    looked = replace(looked, moved=tuple(Moved(door, LATE, (there, QuTransfer(there.destination, there.source, 511))) for door in "ab"))
    first = link(many, raised=False)
    told = judged(chain(first), first, looked)
    assert (told.paid, told.raised) == (False, True)
    then = chain(replace(first, raised=told.raised), link(SECOND))
    assert paid(judged(then, then.links[1], seen(SECOND, flew=True, counters=Counters(6, 10_211), moved=True))) is True
