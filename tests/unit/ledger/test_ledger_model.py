"""Answers of the acts as errors; cursors."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.errors import Conflict, Invalid, NotFound, QubixError
from qubix.kernel.money import Qu
from qubix.ledger.model import Code, make_cursor, missing_funds, read_cursor, refuse

MOMENTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))


@pytest.mark.parametrize("code", [code for code in Code if code < 0])
def test_every_refusal_has_its_error_and_a_stable_code(code: Code) -> None:
    with pytest.raises(QubixError) as caught:
        refuse(code, "escrow 1")
    assert "escrow 1" in caught.value.message
    assert caught.value.code


def test_the_kinds_of_refusal() -> None:
    for code, kind in (
        (Code.OTHER_CONTENT, Conflict),
        (Code.WRONG_STATE, Conflict),
        (Code.OUT_OF_RANGE, Invalid),
        (Code.UNKNOWN, NotFound),
    ):
        with pytest.raises(kind):
            refuse(code, "it")


def test_missing_funds_say_how_much() -> None:
    assert missing_funds(Qu(10), Qu(4)).extra == {"missing": 6, "available": 4, "needed": 10}


def test_missing_funds_are_written_as_people_read_them_and_the_command_as_it_is_typed() -> None:
    error = missing_funds(Qu(5_000_000), Qu(20_000))
    assert error.message == "the wallet has 20 000 QU available, and 5 000 000 QU are needed: 4 980 000 QU are missing"
    assert "4 980 000 QU" in error.next_step
    assert "qubix wallet faucet 4980000" in error.next_step


@given(moment=MOMENTS, entry=st.uuids())
def test_a_cursor_reads_back_to_its_place(moment: dt.datetime, entry: object) -> None:
    assert read_cursor(make_cursor(moment, entry)) == (moment, entry)  # type: ignore[arg-type]


@given(st.text(max_size=60))
def test_a_cursor_of_somebody_else_is_refused_or_read(text: str) -> None:
    with contextlib.suppress(Invalid):
        read_cursor(text)
