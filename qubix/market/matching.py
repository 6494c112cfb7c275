"""Whether an offer can run a job, why none can, and the smallest change that would help. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

from qubix.kernel.sizes import told_apart
from qubix.market.filters import region_matches
from qubix.market.model import Needs, Offer, Status
from qubix.market.query import model_key

VRAM_MARGIN_PCT: Final = 10
COMPUTE_ERROR: Final = 0.27
"""Half width of the compute estimate's error (reference: 80 % conformal, ±27 %)."""


class Compatibility(enum.StrEnum):
    """How well an offer's device covers the needs."""

    SUFFICIENT = "sufficient"
    BORDERLINE = "borderline"
    INSUFFICIENT = "insufficient"


def compatibility(needs: Needs, *, vram_bytes: int, tflops: float) -> Compatibility:
    """Sufficient, borderline (VRAM covers the need by less than 10 %, or compute by less than the estimate's error), or insufficient.

    Args: vram_bytes and tflops of one device; tflops 0 means unknown, and then compute is not judged.
    """
    judged = needs.tflops > 0 and tflops > 0
    if vram_bytes < needs.vram_bytes or (judged and tflops < needs.tflops):
        return Compatibility.INSUFFICIENT
    if needs.vram_bytes and vram_bytes * 100 < needs.vram_bytes * (100 + VRAM_MARGIN_PCT):
        return Compatibility.BORDERLINE
    if judged and tflops < needs.tflops * (1 + COMPUTE_ERROR):
        return Compatibility.BORDERLINE
    return Compatibility.SUFFICIENT


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """One thing that an offer must satisfy; `field` is the need behind it, "" for what nobody can relax."""

    name: str
    field: str
    holds: Callable[[Needs, Offer], bool]


CONSTRAINTS: Final = (
    Constraint("online", "", lambda _, o: o.status in (Status.AVAILABLE, Status.BUSY)),
    Constraint("gpu model", "gpu_models", lambda n, o: not n.gpu_models or model_key(o.model) in {model_key(m) for m in n.gpu_models}),
    Constraint("VRAM", "vram_bytes", lambda n, o: o.vram_bytes >= n.vram_bytes),
    Constraint("compute", "tflops", lambda n, o: n.tflops == 0 or o.tflops == 0 or o.tflops >= n.tflops),
    Constraint("RAM", "ram_bytes", lambda n, o: o.ram_bytes >= n.ram_bytes),
    Constraint("CPU cores", "cpu_cores", lambda n, o: o.cpu_cores >= n.cpu_cores),
    Constraint("region", "regions", lambda n, o: not n.regions or any(region_matches(o.region, r.lower()) for r in n.regions)),
    Constraint("verified", "verified", lambda n, o: n.verified is None or o.verified is n.verified),
    Constraint(
        "reliability",
        "reliability_min",
        lambda n, o: n.reliability_min is None or (o.reliability is not None and o.reliability >= n.reliability_min),
    ),
    Constraint("price", "price_max", lambda n, o: n.price_max is None or o.price_per_hour <= n.price_max),
    Constraint("GPUs on one node", "gpus", lambda n, o: o.gpus >= n.gpus),
    Constraint("free now", "wait", lambda n, o: o.gpus_free >= n.gpus),
)


def fits(needs: Needs, offer: Offer) -> bool:
    """Whether the offer can take the job now."""
    return all(constraint.holds(needs, offer) for constraint in CONSTRAINTS)


def matching(needs: Needs, offers: Sequence[Offer]) -> list[Offer]:
    """The offers that fit now, in the order given."""
    return [offer for offer in offers if fits(needs, offer)]


@dataclasses.dataclass(frozen=True, slots=True)
class Relaxation:
    """The smallest single change that would match: of `field`, from `before` to `after`; `offers` would then fit."""

    field: str
    before: Any
    after: Any
    offers: int
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class NoMatch:
    """Why nothing fits: how many offers were left after each constraint, and what would help."""

    code: str
    message: str
    funnel: tuple[tuple[str, int], ...]
    relaxation: Relaxation | None

    def as_json(self) -> dict[str, Any]:
        """For a job's `unplaceable` column, and for an error's members."""
        return {
            "code": self.code,
            "message": self.message,
            "funnel": [{"constraint": name, "left": left} for name, left in self.funnel],
            "relaxation": None if self.relaxation is None else dataclasses.asdict(self.relaxation),
        }


def explain(needs: Needs, offers: Sequence[Offer]) -> NoMatch | None:
    """Why no offer fits, None where one does.

    The funnel applies the constraints one after the other. A relaxation changes one need alone: among those after which
    an offer would fit, waiting for a busy one comes first, then the least relative change.
    """
    left = list(offers)
    funnel: list[tuple[str, int]] = [("all offers", len(left))]
    guilty: Constraint | None = None
    for constraint in CONSTRAINTS:
        left = [offer for offer in left if constraint.holds(needs, offer)]
        funnel.append((constraint.name, len(left)))
        if not left and guilty is None:
            guilty = constraint
    if guilty is None:
        return None
    found = [relaxed for constraint in CONSTRAINTS if (relaxed := _relax(needs, offers, constraint)) is not None]
    best = min(found, key=lambda pair: pair[0])[1] if found else None
    if not offers:
        return NoMatch("no_offers", "There is no offer at all.", tuple(funnel), None)
    code = "no_node_online" if not guilty.field else ("all_busy" if guilty.field == "wait" else "no_match")
    message = f"No offer is left after the constraint {guilty.name!r}."
    if guilty.field == "wait":
        message = "Every matching GPU is in use."
    elif not guilty.field:
        message = "No node is online."
    return NoMatch(code, message, tuple(funnel), best)


def _relax(needs: Needs, offers: Sequence[Offer], constraint: Constraint) -> tuple[float, Relaxation] | None:
    if not constraint.field:
        return None
    others = [c for c in CONSTRAINTS if c is not constraint]
    fitting = [offer for offer in offers if all(c.holds(needs, offer) for c in others)]
    if not fitting:
        return None
    if constraint.field == "wait":
        return 0.0, Relaxation("wait", 0, None, len(fitting), "Wait: a matching GPU is in use and will be free.")
    before = getattr(needs, constraint.field)
    cost, after = _nearest(constraint.field, before, fitting)
    if constraint.field in ("gpu_models", "regions"):
        after = (*before, after)
    relaxed = dataclasses.replace(needs, **{constraint.field: after})
    fit = sum(fits(relaxed, offer) for offer in offers)
    if fit == 0:
        return None
    return cost, Relaxation(constraint.field, before, after, fit, _say(constraint.field, before, after))


def _nearest(field: str, before: Any, fitting: Sequence[Offer]) -> tuple[float, Any]:
    """(relative change, new value) that lets the nearest of `fitting` in."""
    if field == "price_max":
        after: Any = min(offer.price_per_hour for offer in fitting)
        return after / before - 1, after
    if field == "gpu_models":
        return 0.5, min(fitting, key=lambda offer: (offer.price_per_hour, offer.id)).model
    if field == "regions":
        return 0.4, min(fitting, key=lambda offer: (offer.price_per_hour, offer.id)).region
    if field == "verified":
        return 0.6, None
    if field == "reliability_min":
        known = [offer.reliability for offer in fitting if offer.reliability is not None]
        return (before - max(known), max(known)) if known else (0.7, None)
    after = max(getattr(offer, field) for offer in fitting)
    return (1 - after / before if before else 0.0), after


def _say(field: str, before: Any, after: Any) -> str:
    if field == "price_max":
        return f"Allow {after} per GPU-hour instead of {before}."
    if field in ("vram_bytes", "ram_bytes"):
        less, wanted = told_apart(after, before)
        return f"Ask for {less} of {'VRAM' if field == 'vram_bytes' else 'RAM'} instead of {wanted}."
    if field == "gpu_models":
        return f"Allow {after[-1]} too."
    if field == "regions":
        return f"Allow the region {after[-1]} too."
    if after is None:
        return f"Drop the need {field}."
    return f"Ask for {field} {after} instead of {before}."
