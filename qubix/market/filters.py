"""What a search asks for: one list of conditions, whichever way it was asked (URL parameters or the typed query).

`matches` says in plain Python what the SQL of `search` must agree with; a property test holds the two together.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final, TypeVar
from uuid import UUID

from qubix.kernel.errors import Invalid
from qubix.market import query
from qubix.market.model import PAGE_DEFAULT, PAGE_MAX, Offer, Status
from qubix.market.query import NEGATIONS, Condition, Op, Value

_Choice = TypeVar("_Choice", bound=enum.StrEnum)
PARAMETERS: Final = [
    "model",
    "vram_min",
    "vram_max",
    "price_min",
    "price_max",
    "region",
    "provider",
    "available",
    "q",
    "query",
    "sort",
    "limit",
    "cursor",
    "gpus",
    "reliability_min",
    "verified",
]


class Availability(enum.StrEnum):
    """Which offers are meant: rentable now; not rentable; or all that have not left."""

    AVAILABLE = "true"
    UNAVAILABLE = "false"
    ANY = "any"


class Sort(enum.StrEnum):
    """Orders of a page; ties keep the order in which the offers were made."""

    PRICE = "price"
    PRICE_DESC = "price_desc"
    PERFORMANCE = "performance"
    AVAILABILITY = "availability"
    COST_BENEFIT = "cost_benefit"


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts: behind the offer with this sort value and id."""

    value: float
    offer_id: UUID

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `next_cursor` said. Raises: Invalid."""
        value, _, offer_id = text.partition("~")
        try:
            return cls(float(value), UUID(offer_id))
        except ValueError:
            raise Invalid("This cursor was not made by this list.", next_step="Start again without a cursor.", field="cursor") from None


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """A whole search."""

    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    availability: Availability = Availability.AVAILABLE
    sort: Sort = Sort.PRICE
    limit: int = PAGE_DEFAULT
    cursor: Cursor | None = None


def parse(parameters: Mapping[str, str]) -> Filters:
    """Filters from URL parameters; `model`, `region` and `provider` take lists separated by commas.

    Raises: Invalid for an unknown parameter, or a value that it cannot have; QueryError for `query`.
    """
    unknown = sorted(set(parameters) - set(PARAMETERS))
    if unknown:
        raise Invalid(f"Unknown parameter {unknown[0]!r}.", next_step=f"Parameters are {', '.join(PARAMETERS)}.", field=unknown[0])
    conditions = [
        query.condition(field, op, parameters[name].split(",") if op is Op.IN else [parameters[name]])
        for name, field, op in _SIMPLE
        if parameters.get(name, "")
    ]
    typed, words = query.parse(parameters.get("query", ""))
    free = tuple(word.lower() for word in parameters.get("q", "").split())
    if len(free) > query.TERMS_MAX:
        raise Invalid(f"At most {query.TERMS_MAX} words.", next_step="Shorten the text.", field="q")
    cursor = parameters.get("cursor")
    return Filters(
        conditions=(*conditions, *typed),
        words=(*free, *words),
        availability=_choice(Availability, parameters, "available", Availability.AVAILABLE),
        sort=_choice(Sort, parameters, "sort", Sort.PRICE),
        limit=_limit(parameters.get("limit")),
        cursor=Cursor.parse(cursor) if cursor else None,
    )


_SIMPLE: Final = (
    ("model", "gpu", Op.IN),
    ("vram_min", "vram", Op.GE),
    ("vram_max", "vram", Op.LE),
    ("price_min", "price", Op.GE),
    ("price_max", "price", Op.LE),
    ("region", "region", Op.IN),
    ("provider", "provider", Op.IN),
    ("gpus", "gpus", Op.GE),
    ("reliability_min", "reliability", Op.GE),
    ("verified", "verified", Op.EQ),
)


def _choice(kind: type[_Choice], parameters: Mapping[str, str], name: str, default: _Choice) -> _Choice:
    try:
        return kind(parameters[name]) if parameters.get(name) else default
    except ValueError:
        allowed = [member.value for member in kind]
        raise Invalid(
            f"{name} cannot be {parameters[name][:40]!r}.", next_step=f"One of {', '.join(allowed)}.", field=name, allowed=allowed
        ) from None


def _limit(text: str | None) -> int:
    if not text:
        return PAGE_DEFAULT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= PAGE_MAX:
        raise Invalid(f"limit is a number from 1 to {PAGE_MAX}.", next_step="Correct it.", field="limit")
    return int(text[:9])


def region_matches(region: str, wanted: str) -> bool:
    """Whether a region is the wanted one, or lies in it: `eu-west` lies in `eu`."""
    return region == wanted or region.startswith(wanted + "-")


def matches(offer: Offer, filters: Filters) -> bool:
    """Whether an offer is a result of these filters (the order and the page apart)."""
    if filters.availability is Availability.AVAILABLE and not offer.rentable:
        return False
    if filters.availability is Availability.UNAVAILABLE and (offer.rentable or offer.status is Status.LEFT):
        return False
    if filters.availability is Availability.ANY and offer.status is Status.LEFT:
        return False
    text = " ".join((offer.model, offer.model.replace("_", " "), offer.provider, offer.region, offer.cpu_model)).lower()
    return all(word in text for word in filters.words) and all(_holds(offer, condition) for condition in filters.conditions)


def _holds(offer: Offer, condition: Condition) -> bool:
    negated = condition.op in NEGATIONS
    if condition.field == "region":
        return any(region_matches(offer.region, str(wanted)) for wanted in condition.values) is not negated
    if condition.field == "provider":
        return bool({offer.provider.lower(), str(offer.provider_id)} & set(condition.values)) is not negated
    actual = _actual(offer, condition.field)
    if actual is None:
        return False
    if condition.upto:
        assert isinstance(actual, int)  # noqa: S101  (only sizes have two edges)
        return any(int(least) <= actual <= most for least, most in zip(condition.values, condition.upto, strict=True)) is not negated
    if condition.op in query.EQUALITY:
        return (actual in condition.values) is not negated
    wanted = condition.values[0]
    assert isinstance(actual, (int, float))  # noqa: S101  (the language orders numbers only)
    assert isinstance(wanted, (int, float))  # noqa: S101  (the same)
    return {Op.LT: actual < wanted, Op.LE: actual <= wanted, Op.GT: actual > wanted, Op.GE: actual >= wanted}[condition.op]


def _actual(offer: Offer, field: str) -> Value | None:
    known: dict[str, Value | None] = {
        "gpu": offer.model.replace("-", "_").upper(),
        "vram": offer.vram_bytes,
        "price": offer.price_per_hour,
        "gpus": offer.gpus_free,
        "reliability": offer.reliability,
        "verified": offer.verified,
        "detected": offer.detected_by,
        "cpu_cores": offer.cpu_cores,
        "ram": offer.ram_bytes,
        "tflops": offer.tflops,
    }
    return known[field]


def sort_value(offer: Offer, sort: Sort) -> float:
    """What a page is ordered by, smallest first."""
    if sort is Sort.PRICE:
        return float(offer.price_per_hour)
    if sort is Sort.PRICE_DESC:
        return -float(offer.price_per_hour)
    if sort is Sort.PERFORMANCE:
        return -offer.tflops
    if sort is Sort.AVAILABILITY:
        return -float(offer.gpus_free)
    return offer.price_per_hour / offer.tflops if offer.tflops > 0 else float("inf")
