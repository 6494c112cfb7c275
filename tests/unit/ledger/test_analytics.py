"""Sums by day: every day is there, none is counted twice, nothing outside gets in."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.errors import Invalid
from qubix.kernel.money import Qu
from qubix.ledger.model import EntryType, analyse, first_day

FIRST = dt.date(2026, 11, 1)
ROWS = st.lists(st.tuples(st.integers(-3, 8), st.sampled_from(EntryType), st.integers(1, 10**12), st.integers(1, 9)), max_size=20)


@given(rows=ROWS, days=st.integers(1, 6))
def test_the_total_is_the_sum_of_the_days_and_no_day_lacks(rows: list[tuple[int, EntryType, int, int]], days: int) -> None:
    found = analyse(FIRST, days, [(FIRST + dt.timedelta(days=n), kind, Qu(amount), count) for n, kind, amount, count in rows])
    assert [day for day, _ in found.days] == [FIRST + dt.timedelta(days=n) for n in range(days)]
    for field in dataclasses.fields(found.total):
        assert getattr(found.total, field.name) == sum(getattr(moved, field.name) for _, moved in found.days)
    inside = [row for row in rows if 0 <= row[0] < days]
    assert found.total.transactions == sum(count for *_, count in inside)
    assert found.total.spent == sum(amount for _, kind, amount, _ in inside if kind is EntryType.RELEASE)


def test_today_is_the_last_day_in_utc() -> None:
    late = dt.datetime(2026, 11, 22, 23, 30, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert (first_day(1, late), first_day(3, late)) == (dt.date(2026, 11, 23), dt.date(2026, 11, 21))
    for days in (0, 367):
        with pytest.raises(Invalid):
            first_day(days, late)
