"""Does a series of samples grow? A slope that outliers do not move, its confidence interval, and a verdict. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

Z_95: Final = 1.96
BLOCKS: Final = 24
"""Neighbouring samples resemble each other, and would make the interval too narrow: medians of this many blocks are judged."""
DAY_H: Final = 24.0


@dataclass(frozen=True)
class Slope:
    """Growth per hour, and the interval that holds the true one with 95 %."""

    per_h: float
    low_per_h: float
    high_per_h: float


def theil_sen(times_h: Sequence[float], values: Sequence[float]) -> Slope:
    """The median of the slopes between all pairs (Theil 1950), with the interval by Kendall's tau (Sen 1968).

    Args: times_h, hours, all different, two or more; values, one for each.
    """
    pairs = combinations(zip(times_h, values, strict=True), 2)
    slopes = sorted((later - earlier) / (then - now) for (now, earlier), (then, later) in pairs)
    count = len(times_h)
    reach = Z_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))
    return Slope(statistics.median(slopes), slopes[low], slopes[high])


def slope(times_h: Sequence[float], values: Sequence[float], *, blocks: int = BLOCKS) -> Slope:
    """The slope of the medians of `blocks` equal parts of the series; of the samples themselves where they are fewer."""
    count = len(times_h)
    edges = [count * n // min(blocks, count) for n in range(min(blocks, count) + 1)]
    parts = [slice(first, end) for first, end in pairwise(edges)]
    return theil_sen([statistics.fmean(times_h[part]) for part in parts], [statistics.median(values[part]) for part in parts])


def growing(found: Slope, *, day_max: float) -> bool:
    """Whether it surely grows, and by more than what is allowed in a day.

    The slope counts as zero when the interval holds zero or less, or when even its upper end adds less than `day_max` in 24 hours;
    what lies between is growth.
    """
    return found.low_per_h > 0 and found.high_per_h * DAY_H > day_max
