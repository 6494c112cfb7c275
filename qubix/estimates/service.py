"""Estimates for one job on any GPU: the seam between the pure functions and whoever shows or ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qubix.estimates import catalogue, model
from qubix.estimates.model import SEED, Benchmark, Cost, Estimate


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a job is expected to take and cost on one offer."""

    duration: Estimate
    cost: Cost | None

    def as_json(self) -> dict[str, Any]:
        """For the API: seconds, a readable duration, the confidence, the cost with its breakdown."""
        d, c = self.duration, self.cost
        return {
            "duration_s": None if d.seconds is None else round(d.seconds, 3),
            "duration_low_s": None if d.low_s is None else round(d.low_s, 3),
            "duration_high_s": None if d.high_s is None else round(d.high_s, 3),
            "duration": d.readable,
            "confidence": d.confidence.value,
            "cost": None if c is None else c.total,
            "cost_per_minute": None if c is None else c.per_minute,
            "breakdown": [] if c is None else [{"item": line.item, "amount": line.amount} for line in c.lines],
        }


class EstimatesService:
    """Durations and costs from the given benchmarks; it keeps nothing and reads nothing.

    Args: benchmarks; fee_bps, the platform's part of a cost.
    """

    def __init__(self, benchmarks: Sequence[Benchmark] = SEED, *, fee_bps: int = 0) -> None:
        self._benchmarks = tuple(benchmarks)
        self._fee_bps = fee_bps

    def estimate(self, kind: str, parameters: Mapping[str, Any], gpu_model: str) -> Estimate:
        """How long a job takes on a GPU model. Raises: Invalid for a parameter that cannot be."""
        return model.estimate(kind, parameters, gpu_model, self._benchmarks)

    def durations(self, kind: str, parameters: Mapping[str, Any]) -> Callable[[str], float | None]:
        """Expected seconds by GPU model, for the market's ranking."""
        return lambda gpu_model: self.estimate(kind, parameters, gpu_model).seconds

    def plan(self, kind: str, parameters: Mapping[str, Any], *, gpu_model: str, price_per_hour: int, gpus: int = 1) -> Plan:
        """Duration and cost on an offer; no cost is claimed where no duration is known."""
        duration = self.estimate(kind, parameters, gpu_model)
        if duration.seconds is None:
            return Plan(duration, None)
        return Plan(duration, model.cost(-int(-duration.seconds // 1), price_per_hour, gpus, fee_bps=self._fee_bps))

    @staticmethod
    def tflops(gpu_model: str) -> float:
        """The catalogue's figure for a GPU model, 0 where unknown."""
        return catalogue.tflops(gpu_model)
