"""How long a job takes on a GPU, and what that costs: pure, from benchmarks and the catalogue."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qubix.estimates import durations
from qubix.estimates.catalogue import gpu
from qubix.kernel.errors import Invalid
from qubix.kernel.money import Qu, ceiling, fee

EXPONENTS: Final[Mapping[str, int]] = {"epochs": 1, "dataset_size": 1, "images": 1, "steps": 1, "resolution": 2}
"""How the duration grows with each parameter: with epochs in proportion, with resolution by its square."""
ERROR_MEASURED: Final = 0.10
ERROR_SCALED: Final = 0.27
"""Half width of an 80 % interval for a GPU that the benchmark did not run on."""
PARAMETER_MAX: Final = 10**9


class Confidence(enum.StrEnum):
    """What an estimate rests on."""

    HIGH = "high"
    """A benchmark of this kind of job on this GPU model."""
    MEDIUM = "medium"
    """A benchmark of this kind of job on another GPU model."""
    NONE = "none"
    """No benchmark: no duration is claimed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """One measured run: a kind of job, a GPU model, its parameters, and how many seconds it took."""

    kind: str
    model: str
    parameters: Mapping[str, int]
    seconds: float


SEED: Final = (
    Benchmark("mnist", "RTX_4090", {"epochs": 5}, 120.0),
    Benchmark("mnist", "RTX_3090", {"epochs": 5}, 180.0),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Expected seconds with the interval that 80 % of runs should end in; None throughout where nothing is known."""

    seconds: float | None
    low_s: float | None
    high_s: float | None
    confidence: Confidence

    @property
    def readable(self) -> str:
        """As `2 minutes`, or `unknown`."""
        return "unknown" if self.seconds is None else durations.readable(math.ceil(self.seconds))


UNKNOWN: Final = Estimate(None, None, None, Confidence.NONE)


@dataclasses.dataclass(frozen=True, slots=True)
class CostLine:
    """One line of a cost's breakdown."""

    item: str
    amount: Qu


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What a duration costs; the lines sum to the total."""

    total: Qu
    rate_per_hour: Qu
    per_minute: Qu
    lines: tuple[CostLine, ...]


def scale(parameters: Mapping[str, Any], base: Mapping[str, int]) -> float:
    """How much longer a run with `parameters` takes than the benchmark with `base`.

    A parameter that the benchmark does not state is not scaled by; one that the job does not state is the benchmark's.
    Raises: Invalid for a value that is not a whole number from 1 to PARAMETER_MAX.
    """
    factor = 1.0
    for name, exponent in EXPONENTS.items():
        if name in base and name in parameters:
            factor *= (_whole(name, parameters[name]) / base[name]) ** exponent
    return factor


def estimate(kind: str, parameters: Mapping[str, Any], model: str, benchmarks: Sequence[Benchmark] = SEED) -> Estimate:
    """How long a job takes on a GPU model.

    Args: kind, the library's name of the job; model, as in the catalogue.
    Returns: from the benchmark on this model; else from the one on the GPU nearest in speed, scaled by the catalogue's index;
        else UNKNOWN.
    """
    same = [b for b in benchmarks if b.kind == kind]
    exact = next((b for b in same if b.model == model), None)
    if exact is not None:
        return _around(exact.seconds * scale(parameters, exact.parameters), ERROR_MEASURED, Confidence.HIGH)
    here = gpu(model)
    known = [(b, there) for b in same if (there := gpu(b.model)) is not None]
    if here is None or not known:
        return UNKNOWN
    nearest, there = min(known, key=lambda pair: abs(math.log(pair[1].index / here.index)))
    seconds = nearest.seconds * scale(parameters, nearest.parameters) * there.index / here.index
    return _around(seconds, ERROR_SCALED, Confidence.MEDIUM)


def cost(duration_s: int, price_per_hour: int, gpus: int = 1, *, fee_bps: int = 0) -> Cost:
    """What `duration_s` seconds cost: duration × rate, rounded up once, in whole units.

    Args: price_per_hour, per GPU-hour; fee_bps, the platform's part, which is inside the total and leaves the provider the rest.
    """
    rate = Qu(price_per_hour * gpus)
    total = ceiling(rate, duration_s)
    platform = fee(total, fee_bps)
    lines = [CostLine("provider", Qu(total - platform))]
    if fee_bps:
        lines.append(CostLine("platform fee", platform))
    return Cost(total, rate, ceiling(rate, 60), tuple(lines))


def _around(seconds: float, error: float, confidence: Confidence) -> Estimate:
    return Estimate(seconds, seconds * (1 - error), seconds * (1 + error), confidence)


def _whole(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= PARAMETER_MAX or (isinstance(value, float) and value != number):
        raise Invalid(f"{name} is a whole number from 1 to {PARAMETER_MAX}.", next_step=f"Correct {name}.", field=name)
    return number
