"""Durations, costs and the catalogue."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.estimates import catalogue, durations, model
from qubix.estimates.model import Benchmark, Confidence
from qubix.estimates.service import EstimatesService
from qubix.kernel.errors import Invalid
from qubix.kernel.money import Qu, charge


@settings(max_examples=500)
@given(st.integers(0, durations.DURATION_MAX_S))
def test_p_b42_any_duration_reads_back_to_itself_to_the_second(seconds: int) -> None:
    assert durations.parse(durations.readable(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5 minutes 30 seconds", 330),
        ("5m30s", 330),
        ("90", 90),
        ("1h", 3600),
        ("1 hour", 3600),
        ("2 days, 3 hours and 1 second", 183_601),
        ("0 seconds", 0),
        (" 2H ", 7200),
        ("10 mins", 600),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: int) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "5m 3h", "1h 1h", "-5", "5m30", "1e9", "99999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        durations.parse(text)


def test_the_words_of_a_duration() -> None:
    assert [durations.readable(s) for s in (0, 1, 330, 3600, 90_061)] == [
        "0 seconds",
        "1 second",
        "5 minutes 30 seconds",
        "1 hour",
        "1 day 1 hour 1 minute 1 second",
    ]


def test_p_b41_an_estimate_equals_the_benchmark_at_its_own_parameters() -> None:
    for benchmark in model.SEED:
        found = model.estimate(benchmark.kind, benchmark.parameters, benchmark.model)
        assert (found.seconds, found.confidence) == (benchmark.seconds, Confidence.HIGH)
    assert model.estimate("mnist", {}, "RTX_4090").seconds == 120


@given(st.integers(1, 1000), st.integers(1, 4096), st.integers(1, 10**6))
def test_p_b41_an_estimate_grows_with_epochs_resolution_and_dataset_as_stated(epochs: int, resolution: int, size: int) -> None:
    base = Benchmark("x", "RTX_4090", {"epochs": 5, "resolution": 512, "dataset_size": 10_000}, 100.0)
    found = model.estimate("x", {"epochs": epochs, "resolution": str(resolution), "dataset_size": size}, "RTX_4090", [base])
    assert found.seconds == pytest.approx(100 * (epochs / 5) * (resolution / 512) ** 2 * (size / 10_000))


def test_another_gpu_is_estimated_from_the_nearest_with_less_confidence() -> None:
    exact, scaled, unknown = (model.estimate("mnist", {"epochs": 5}, gpu) for gpu in ("RTX_3090", "A100_80GB", "PICO_9000"))
    assert exact.confidence is Confidence.HIGH
    assert scaled.confidence is Confidence.MEDIUM
    assert scaled.seconds is not None
    assert scaled.seconds < 120
    assert unknown == model.UNKNOWN
    assert model.estimate("render", {}, "RTX_4090") == model.UNKNOWN
    assert exact.low_s is not None
    assert scaled.low_s is not None
    assert exact.seconds is not None
    assert exact.low_s / exact.seconds > scaled.low_s / scaled.seconds


@pytest.mark.parametrize("epochs", [0, -1, "many", 1.5, 10**10, None])
def test_a_parameter_that_cannot_be_is_refused(epochs: object) -> None:
    with pytest.raises(Invalid):
        model.estimate("mnist", {"epochs": epochs}, "RTX_4090")


@settings(max_examples=300)
@given(st.integers(0, 10**8), st.integers(1, 10**12), st.integers(1, 64), st.integers(0, 10_000))
def test_p_b43_a_cost_is_duration_times_rate_rounded_once(seconds: int, price: int, gpus: int, bps: int) -> None:
    found = model.cost(seconds, price, gpus, fee_bps=bps)
    assert found.total == -(-price * gpus * seconds // 3600)
    assert 0 <= found.total - charge(found.rate_per_hour, seconds * 1000, Qu(2**63)) <= 1


@settings(max_examples=300)
@given(st.integers(0, 10**8), st.integers(1, 10**12), st.integers(1, 64), st.integers(0, 10_000))
def test_p_b44_the_breakdown_of_a_cost_sums_to_it_in_integers(seconds: int, price: int, gpus: int, bps: int) -> None:
    found = model.cost(seconds, price, gpus, fee_bps=bps)
    assert sum(line.amount for line in found.lines) == found.total
    assert all(type(line.amount) is int and line.amount >= 0 for line in found.lines)
    assert found.per_minute == -(-price * gpus // 60)


def test_p_b45_an_estimate_for_every_gpu_is_recalculated_within_500_ms() -> None:
    estimates = EstimatesService()
    began = time.perf_counter()
    for epochs in range(1, 101):
        for gpu in catalogue.GPUS:
            estimates.plan("mnist", {"epochs": epochs}, gpu_model=gpu, price_per_hour=2000)
    assert (time.perf_counter() - began) / 100 < 0.5


def test_a_plan_claims_no_cost_where_no_duration_is_known() -> None:
    plan = EstimatesService().plan("render", {}, gpu_model="RTX_4090", price_per_hour=2000).as_json()
    assert (plan["duration"], plan["cost"], plan["confidence"]) == ("unknown", None, "none")


def test_a_plan_says_duration_and_cost() -> None:
    plan = EstimatesService(fee_bps=1000).plan("mnist", {"epochs": "5"}, gpu_model="RTX_3090", price_per_hour=2001, gpus=2).as_json()
    assert (plan["duration"], plan["cost"], plan["confidence"]) == ("3 minutes", math.ceil(2001 * 2 * 180 / 3600), "high")
    assert sum(line["amount"] for line in plan["breakdown"]) == plan["cost"]


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX_4090"),
        ("NVIDIA GeForce RTX 3080 Ti", "RTX_3080_TI"),
        ("NVIDIA A100-SXM4-80GB", "A100_80GB"),
        ("NVIDIA A100 80GB PCIe", "A100_80GB_PCIE"),
        ("NVIDIA H100 80GB HBM3", "H100_SXM"),
        ("NVIDIA H100 PCIe", "H100_PCIE"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX_6000_ADA"),
        ("RTX-4090", "RTX_4090"),
    ],
)
def test_a_reported_name_is_spelt_as_in_the_catalogue(reported: str, name: str) -> None:
    assert catalogue.model_name(reported) == name or catalogue.gpu(reported) is catalogue.GPUS.get(name)


def test_every_gpu_of_the_catalogue_has_figures_that_can_be() -> None:
    for name, gpu in catalogue.GPUS.items():
        assert catalogue.model_name(name) == name
        assert 8 <= gpu.vram_bytes / catalogue.GIB <= 192
        assert 20 < gpu.tflops < 3000
        assert 200 < gpu.bandwidth_gb_s <= 8000
    assert catalogue.tflops("PICO_9000") == 0
