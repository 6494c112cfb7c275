"""Money formulas: integers, rounded once, never more than what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel import money
from qubix.kernel.money import MS_PER_HOUR, Qu

amounts = st.integers(0, 10**15).map(Qu)
rates = st.integers(1, 10**12).map(Qu)
durations_ms = st.integers(0, 30 * 24 * MS_PER_HOUR)


@given(rates, durations_ms, amounts)
def test_a_charge_is_the_exact_product_rounded_down_once_and_capped(rate: Qu, ran_ms: int, left: Qu) -> None:
    charged = money.charge(rate, ran_ms, left)
    assert 0 <= charged <= left
    if charged < left:
        assert charged * MS_PER_HOUR <= rate * ran_ms < (charged + 1) * MS_PER_HOUR


@given(rates, amounts)
def test_the_time_limit_never_costs_more_than_what_is_left(rate: Qu, left: Qu) -> None:
    limit = money.limit_ms(left, rate)
    assert rate * limit <= left * MS_PER_HOUR < rate * (limit + 1)


@given(rates, st.integers(0, 10**7))
def test_a_ceiling_pays_for_the_whole_duration(rate: Qu, duration_s: int) -> None:
    assert money.limit_ms(money.ceiling(rate, duration_s), rate) >= duration_s * 1000
    assert money.ceiling(rate, duration_s) * 3600 - rate * duration_s < 3600


@given(amounts, st.integers(0, 10_000))
def test_a_fee_never_exceeds_its_gross(gross: Qu, bps: int) -> None:
    assert 0 <= money.fee(gross, bps) <= gross


@pytest.mark.parametrize(("gross", "bps"), [(-1, 0), (1, -1), (1, 10_001)])
def test_an_impossible_fee_is_refused(gross: int, bps: int) -> None:
    with pytest.raises(ValueError, match="basis points"):
        money.fee(Qu(gross), bps)


def test_negative_rates_times_and_funds_are_refused() -> None:
    for arguments in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        with pytest.raises(ValueError, match="never negative"):
            money.charge(Qu(arguments[0]), arguments[1], Qu(arguments[2]))
    with pytest.raises(ValueError, match="positive"):
        money.limit_ms(Qu(1), Qu(0))


@pytest.mark.parametrize(("amount", "text"), [(0, "0 QU"), (999, "999 QU"), (1_234_567, "1 234 567 QU"), (-5000, "-5 000 QU")])
def test_an_amount_is_written_in_groups_with_its_unit(amount: int, text: str) -> None:
    assert money.written(amount) == text
