"""What `qubix treasury recover` says to do about a payment that needs a person's word."""

from __future__ import annotations

from uuid import UUID

import pytest

from qubix.cli.output import WrongUsage
from qubix.cli.recover import _ways, recover
from qubix.treasury.recovering import Explained, Lost, Place

KNOWN, UNKNOWN = Place("A", 5, UUID(int=1)), Place("B", 7, None)


def test_the_word_that_stands_for_a_proof_is_none() -> None:
    with pytest.raises(WrongUsage, match="PROOF stands for"):
        recover("tx", unpaid="PROOF", yes=True)


def lost(*, proved: bool) -> Lost:
    return Lost("tx", "HOT", "A", 12, 9, 0, b"", from_hot=True, to_hot=False, is_proved=proved)


@pytest.mark.parametrize(
    ("one", "ways"),
    [
        (Explained(lost(proved=False), "sweep"), ["--unpaid PROOF", ""]),
        (Explained(lost(proved=False), "payout", places=(KNOWN, UNKNOWN)), ["--unpaid PROOF"]),
        (Explained(lost(proved=False), "unknown", reason="no such memo"), ["--unpaid PROOF"]),
        (Explained(lost(proved=True), "unknown", places=(UNKNOWN,)), ["--house"]),
        (Explained(lost(proved=True), "payout", places=(KNOWN, UNKNOWN)), ["--user EMAIL", "--house"]),
        (Explained(lost(proved=True), "payout", places=(UNKNOWN, UNKNOWN)), ["--user EMAIL --user EMAIL", "--house"]),
    ],
)
def test_only_what_can_settle_it_is_proposed_and_nobody_is_charged_for_what_is_not_proved(one: Explained, ways: list[str]) -> None:
    assert not one.is_bookable
    assert [command.removeprefix("qubix treasury recover tx").strip() for command in _ways(one)] == ways
