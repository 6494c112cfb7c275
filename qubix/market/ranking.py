"""The order of offers for one job: by cost-benefit, price or performance. Pure; ties keep the order given."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from typing import Final

from qubix.kernel.money import Qu, ceiling
from qubix.market.matching import Compatibility, compatibility
from qubix.market.model import Needs, Offer

TOP: Final = 3
PRIOR_GOOD: Final = 9
PRIOR_ENDED: Final = 10
"""A provider without a history counts as one that had 9 good endings in 10."""

Duration = Callable[[str], float | None]
"""Expected seconds of the job on a GPU model; None where nothing is known."""


class By(enum.StrEnum):
    """What the best offer is."""

    COST_BENEFIT = "cost_benefit"
    PRICE = "price"
    PERFORMANCE = "performance"


@dataclasses.dataclass(frozen=True, slots=True)
class Ranked:
    """An offer as a choice for one job.

    Args: duration_s and cost, expected for one undisturbed run, None where the benchmark says nothing; expected_cost, to
        completion, disturbed runs included.
    """

    offer: Offer
    compatibility: Compatibility
    duration_s: float | None
    cost: Qu | None
    expected_cost: float | None

    @property
    def selectable(self) -> bool:
        """Whether it may be chosen."""
        return self.compatibility is not Compatibility.INSUFFICIENT


def success_probability(offer: Offer) -> float:
    """The chance that an attempt ends without the provider's fault, between its record and the prior."""
    good = 0.0 if offer.reliability is None else offer.reliability * offer.attempts
    return (good + PRIOR_GOOD) / (offer.attempts + PRIOR_ENDED)


def expected_cost(price_per_hour: int, gpus: int, duration_s: float, success: float) -> float:
    """What a job costs until it is done: half of a disturbed run is paid for again, as its last checkpoint preserved the rest.

    Args: success, the chance that one run is undisturbed, above 0.
    """
    return price_per_hour * gpus * duration_s / 3600 * (1 + (1 - success) / success / 2)


def assess(needs: Needs, offer: Offer, duration_s: float | None) -> Ranked:
    """One offer as a choice for a job that takes `duration_s` on it."""
    fit = compatibility(needs, vram_bytes=offer.vram_bytes, tflops=offer.tflops)
    if duration_s is None:
        return Ranked(offer, fit, None, None, None)
    cost = ceiling(Qu(offer.price_per_hour * needs.gpus), math.ceil(duration_s))
    return Ranked(offer, fit, duration_s, cost, expected_cost(offer.price_per_hour, needs.gpus, duration_s, success_probability(offer)))


def rank(needs: Needs, offers: Sequence[Offer], duration: Duration, *, by: By = By.COST_BENEFIT) -> list[Ranked]:
    """The compatible offers, best first; a sorted permutation of them, ties in the order given."""
    choices = [assess(needs, offer, duration(offer.model)) for offer in offers]
    return sorted((choice for choice in choices if choice.selectable), key=lambda choice: _key(choice, by))


def top(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The recommended ones."""
    return list(ranked[:TOP])


def _key(choice: Ranked, by: By) -> tuple[float, float]:
    price = float(choice.offer.price_per_hour)
    if by is By.PRICE:
        return price, 0.0
    if by is By.PERFORMANCE:
        return (choice.duration_s if choice.duration_s is not None else math.inf), -choice.offer.tflops
    if choice.expected_cost is not None:
        return choice.expected_cost, price
    # Without a duration the cost of a unit of compute orders them, behind those whose cost is known.
    per_unit = price / choice.offer.tflops / success_probability(choice.offer) if choice.offer.tflops > 0 else price * 1e9
    return 1e30 + per_unit * 1e15, price
