"""What counts as growth: a steady rise above what a day may add; neither noise, nor steps at the start, nor a slow drift."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._slope import growing, slope, theil_sen

HALF_AN_HOUR = [n / 720 for n in range(360)]
"""A sample every 5 s, in hours."""
DAY_MAX = 48.0


def noisy(per_h: float, *, noise: float, seed: int = 1) -> list[float]:
    generator = random.Random(seed)
    return [100 + per_h * hour + generator.gauss(0, noise) for hour in HALF_AN_HOUR]


@given(per_h=st.floats(-100, 100), start=st.floats(0, 1000))
def test_a_straight_line_has_its_own_slope_and_no_doubt(per_h: float, start: float) -> None:
    found = slope(HALF_AN_HOUR, [start + per_h * hour for hour in HALF_AN_HOUR])
    for value in (found.per_h, found.low_per_h, found.high_per_h):
        assert math.isclose(value, per_h, abs_tol=1e-6)


def test_a_slope_does_not_follow_outliers() -> None:
    values = [10.0 + hour for hour in HALF_AN_HOUR]
    for at in range(0, 360, 12):
        values[at] += 500
    assert slope(HALF_AN_HOUR, values).per_h == pytest.approx(1.0, abs=0.01)


def test_theil_sen_agrees_with_a_worked_example() -> None:
    """Five points: the ten slopes are 1 1 2 2 2.25 2.5 2.5 2.67 3 4; with so few, the interval spans all of them."""
    found = theil_sen([0, 1, 2, 3, 4], [0, 1, 5, 6, 9])
    assert (found.per_h, found.low_per_h, found.high_per_h) == (2.375, 1.0, 4.0)


@pytest.mark.parametrize("per_h", [20.0, 4.0])
def test_a_steady_rise_is_growth(per_h: float) -> None:
    assert growing(slope(HALF_AN_HOUR, noisy(per_h, noise=0.2)), day_max=DAY_MAX)


@pytest.mark.parametrize("seed", range(5))
def test_noise_around_a_level_is_none(seed: int) -> None:
    assert not growing(slope(HALF_AN_HOUR, noisy(0.0, noise=3.0, seed=seed)), day_max=DAY_MAX)


def test_a_drift_too_slow_to_matter_is_none() -> None:
    assert not growing(slope(HALF_AN_HOUR, noisy(1.0, noise=0.01)), day_max=DAY_MAX)


def test_what_shrinks_does_not_grow() -> None:
    assert not growing(slope(HALF_AN_HOUR, noisy(-50.0, noise=0.1)), day_max=DAY_MAX)


def test_a_level_that_never_moves_is_none() -> None:
    assert not growing(slope(HALF_AN_HOUR, [7.0] * 360), day_max=DAY_MAX)
