"""Compatibility, ranking and what an offer costs to completion."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.kernel.errors import Invalid
from qubix.market import ranking
from qubix.market.matching import COMPUTE_ERROR, Compatibility, compatibility, explain, fits, matching
from qubix.market.model import Needs, Offer, Status, terms
from qubix.market.ranking import By
from tests.unit.market.offers import GIB, offer, offers

NEEDS = st.builds(
    Needs,
    gpus=st.integers(1, 4),
    gpu_models=st.sampled_from([(), ("RTX_4090",), ("rtx-3090", "A100_80GB")]),
    vram_bytes=st.sampled_from([0, 8 * GIB, 24 * GIB, 80 * GIB]),
    tflops=st.sampled_from([0.0, 100.0]),
    regions=st.sampled_from([(), ("eu",), ("us",)]),
    price_max=st.sampled_from([None, 500, 1000]),
    reliability_min=st.sampled_from([None, 0.9]),
)


@settings(max_examples=300)
@given(st.integers(0, 200 * GIB), st.integers(1, 200 * GIB), st.floats(0, 500), st.floats(0, 500))
def test_p_b07_an_offer_is_sufficient_borderline_or_insufficient_exactly_as_stated(
    need: int, vram: int, compute: float, tflops: float
) -> None:
    found = compatibility(Needs(vram_bytes=need, tflops=compute), vram_bytes=vram, tflops=tflops)
    judged = compute > 0 and tflops > 0
    if vram < need or (judged and tflops < compute):
        assert found is Compatibility.INSUFFICIENT
    elif (need and vram * 10 < need * 11) or (judged and tflops < compute * (1 + COMPUTE_ERROR)):
        assert found is Compatibility.BORDERLINE
    else:
        assert found is Compatibility.SUFFICIENT


@settings(max_examples=300)
@given(st.lists(offers(), max_size=20), NEEDS, st.sampled_from(By), st.sampled_from([None, 60.0, 3600.0]))
def test_p_b08_a_ranking_is_a_sorted_permutation_and_ties_are_stable(
    found: list[Offer], needs: Needs, by: By, seconds: float | None
) -> None:
    def duration(model: str) -> float | None:
        return seconds if model != "ODD" else None

    ranked = ranking.rank(needs, found, duration, by=by)
    compatible = [o for o in found if compatibility(needs, vram_bytes=o.vram_bytes, tflops=o.tflops) is not Compatibility.INSUFFICIENT]
    assert sorted(r.offer.id for r in ranked) == sorted(o.id for o in compatible)
    keys = [ranking._key(choice, by) for choice in ranked]
    assert keys == sorted(keys)
    place = {o.id: n for n, o in enumerate(found)}
    for (first, x), (second, y) in itertools.pairwise(zip(ranked, keys, strict=True)):
        assert x < y or place[first.offer.id] < place[second.offer.id]
    assert ranking.top(ranked) == ranked[:3]


def test_the_cheapest_to_complete_comes_first_not_the_cheapest_hour() -> None:
    slow, fast = offer(model="RTX_3090", price_per_hour=1000), offer(model="RTX_4090", price_per_hour=1400)
    duration = {"RTX_3090": 180.0, "RTX_4090": 120.0}.get
    assert [r.offer.id for r in ranking.rank(Needs(), [slow, fast], duration)] == [fast.id, slow.id]
    assert [r.offer.id for r in ranking.rank(Needs(), [slow, fast], duration, by=By.PRICE)] == [slow.id, fast.id]


def test_a_provider_that_breaks_off_costs_more_to_complete() -> None:
    good, bad = offer(reliability=1.0, attempts=100), offer(reliability=0.5, attempts=100, price_per_hour=990)
    assert [r.offer.id for r in ranking.rank(Needs(), [bad, good], lambda _: 3600.0)] == [good.id, bad.id]


@given(st.integers(1, 10**6), st.integers(1, 8), st.floats(1, 10**6), st.floats(0.1, 1))
def test_the_expected_cost_is_never_below_one_undisturbed_run(price: int, gpus: int, seconds: float, success: float) -> None:
    assert ranking.expected_cost(price, gpus, seconds, success) >= price * gpus * seconds / 3600 * (1 - 1e-9)


@settings(max_examples=300)
@given(st.lists(offers(), max_size=12), NEEDS)
def test_a_relaxation_makes_an_offer_fit_and_exists_whenever_one_change_would_help(found: list[Offer], needs: Needs) -> None:
    why = explain(needs, found)
    assert (why is None) == bool(matching(needs, found))
    if why is None:
        return
    left = [count for _, count in why.funnel]
    assert left == sorted(left, reverse=True)
    assert left[0] == len(found)
    assert left[-1] == 0
    relaxed = why.relaxation
    if relaxed is None:
        return
    assert relaxed.offers > 0
    if relaxed.field != "wait":
        changed = Needs.parse({**needs.as_json(), relaxed.field: relaxed.after})
        assert sum(fits(changed, o) for o in found) == relaxed.offers


def test_waiting_is_the_first_advice_when_a_matching_gpu_is_busy() -> None:
    why = explain(Needs(price_max=1000), [offer(gpus_free=0, status=Status.BUSY), offer(price_per_hour=1001)])
    assert why is not None
    assert why.code == "all_busy" or why.relaxation is not None
    assert why.relaxation is not None
    assert why.relaxation.field == "wait"


def test_the_least_relative_change_is_advised() -> None:
    why = explain(Needs(price_max=1000, vram_bytes=24 * GIB), [offer(price_per_hour=1050), offer(vram_bytes=8 * GIB)])
    assert why is not None
    assert why.relaxation is not None
    assert (why.relaxation.field, why.relaxation.after) == ("price_max", 1050)


@pytest.mark.parametrize(
    "wrong", [{"gpus": 0}, {"gpus": 65}, {"vram_bytes": -1}, {"price_max": 0}, {"colour": 1}, {"gpus": None, "bogus": 2}]
)
def test_needs_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Needs.parse(wrong)


@given(NEEDS)
def test_needs_read_back_from_their_json(needs: Needs) -> None:
    assert Needs.parse(needs.as_json()) == needs


@given(st.integers(1, 10**9), st.integers(1, 64), st.integers(1, 30 * 24 * 3600))
def test_the_ceiling_pays_for_the_whole_duration(price: int, gpus: int, seconds: int) -> None:
    fixed = terms(price, gpus, seconds, budget=None)
    assert fixed.rate_max == price * gpus
    assert fixed.ceiling == math.ceil(price * gpus * seconds / 3600) or fixed.ceiling == -(-price * gpus * seconds // 3600)


def test_a_relaxation_says_sizes_as_they_are_written_and_sold() -> None:
    why = explain(Needs(vram_bytes=48 * 10**9), [offer(vram_bytes=24_564 << 20)])
    assert why is not None
    assert why.relaxation is not None
    assert why.relaxation.message == "Ask for 24 GB of VRAM instead of 48 GB."
