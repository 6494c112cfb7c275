"""Offers, needs and quotes as values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from qubix.kernel.errors import Conflict, Invalid, NotFound
from qubix.kernel.ids import NodeId, OfferId, ProviderId, QuoteId
from qubix.kernel.money import AMOUNT_MAX, Qu, ceiling, written

QUOTE_TTL_S: Final = 60
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 50
GPUS_MAX: Final = 64
PRICE_MAX: Final = 10**15
DURATION_MAX_S: Final = 30 * 24 * 3600
COMPARE_MIN: Final = 2
COMPARE_MAX: Final = 3


class OfferTaken(Conflict):
    """The offer was rented, changed or left between plan and confirm; `next_best` names what to take instead."""

    code = "offer_taken"


class QuoteGone(Conflict):
    """The quote was used, replaced or ran out."""

    code = "quote_gone"


class NothingMatches(Conflict):
    """No offer fits the needs; `funnel` says where they were lost, `relaxation` the smallest change that would match."""

    code = "no_match"


class NoSuchOffer(NotFound):
    """There is no such offer."""

    code = "offer_not_found"


class Status(enum.StrEnum):
    """What an offer is now, as shown."""

    AVAILABLE = "available"
    BUSY = "busy"
    STALE = "stale"
    OFFLINE = "offline"
    REGISTERING = "registering"
    PAUSED = "paused"
    DRAINING = "draining"
    LEFT = "left"
    OVERHEATING = "overheating"
    NO_SANDBOX = "no_sandbox"


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of one model on one node, at a price per GPU-hour.

    Args: gpus_free, devices that nobody holds at this moment; status says why an offer is not rentable;
        reliability, the share of the provider's attempts that ended without its fault, None where none ended.
    """

    id: OfferId
    node_id: NodeId
    provider_id: ProviderId
    provider: str
    model: str
    gpus: int
    gpus_free: int
    vram_bytes: int
    price_per_hour: Qu
    region: str
    cpu_model: str
    cpu_cores: int
    ram_bytes: int
    tflops: float
    reliability: float | None
    attempts: int
    verified: bool
    detected_by: str
    status: Status

    @property
    def rentable(self) -> bool:
        """Whether at least one of its devices can be had now."""
        return self.status is Status.AVAILABLE and self.gpus_free > 0


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What a job asks of an offer. Empty collections and None ask for nothing.

    Args: gpus, devices on one node; vram_bytes, per device; tflops, compute per device; price_max, per GPU-hour.
    """

    gpus: int = 1
    gpu_models: tuple[str, ...] = ()
    vram_bytes: int = 0
    tflops: float = 0.0
    ram_bytes: int = 0
    cpu_cores: int = 0
    regions: tuple[str, ...] = ()
    price_max: int | None = None
    reliability_min: float | None = None
    verified: bool | None = None

    def __post_init__(self) -> None:
        for field, value, most in (
            ("gpus", self.gpus, GPUS_MAX),
            ("vram_bytes", self.vram_bytes, 1 << 44),
            ("ram_bytes", self.ram_bytes, 1 << 50),
            ("cpu_cores", self.cpu_cores, 4096),
        ):
            least = 1 if field == "gpus" else 0
            if not least <= value <= most:
                raise Invalid(f"{field} is between {least} and {most}.", next_step=f"Correct {field}.", field=field)
        if self.price_max is not None and not 0 < self.price_max <= PRICE_MAX:
            raise Invalid(f"price_max is between 1 QU and {written(PRICE_MAX)}.", next_step="Correct price_max.", field="price_max")

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Needs:
        """Needs from a request or a job's row; unknown members are refused. Raises: Invalid."""
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - names)
        if unknown:
            raise Invalid(f"Unknown needs: {', '.join(unknown)}.", next_step=f"Needs are {', '.join(sorted(names))}.", field="needs")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items() if value is not None
        }
        try:
            return cls(**given)
        except TypeError:
            raise Invalid("The needs have a member of the wrong type.", next_step="Numbers are integers.", field="needs") from None

    def as_json(self) -> dict[str, Any]:
        """The members that differ from asking for nothing, as JSON."""
        empty = Needs()
        return {k: v for k, v in dataclasses.asdict(self).items() if v != getattr(empty, k) or k == "gpus"}


class QuoteState(enum.StrEnum):
    """Open while its leases hold; used by one job; or expired."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"


@dataclasses.dataclass(frozen=True, slots=True)
class Quote:
    """An offer held for one user for 60 s, with the most that it can cost.

    Args: rate_max, units per hour for all GPUs; ceiling, what the escrow will hold; duration_max_s, what it pays for.
    """

    id: QuoteId
    user_id: UUID
    offer_id: OfferId
    node_id: NodeId
    model: str
    gpus: int
    device_ids: tuple[int, ...]
    price_per_hour: Qu
    rate_max: Qu
    ceiling: Qu
    duration_max_s: int
    expires_at: dt.datetime
    state: QuoteState


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What a quote fixes."""

    rate_max: Qu
    ceiling: Qu


def terms(price_per_hour: int, gpus: int, duration_max_s: int, *, budget: int | None, price_max: int | None = None) -> Terms:
    """The terms of a quote.

    Args: price_per_hour, the offer's, per GPU-hour; budget, the most that the whole job may cost, where given; price_max,
        per GPU-hour, where the consumer allows a dearer node later (retries).
    Returns: rate_max = price × gpus per hour; ceiling = the budget, or what duration_max_s costs at that rate, rounded up.
    Raises: Invalid when a number is out of range or the budget is not positive.
    """
    if not 0 < duration_max_s <= DURATION_MAX_S:
        raise Invalid(f"The duration is between 1 and {DURATION_MAX_S} seconds.", next_step="Correct it.", field="duration_max_s")
    rate = Qu(max(price_per_hour, price_max or 0) * gpus)
    held = ceiling(rate, duration_max_s) if budget is None else Qu(budget)
    if not 0 < held <= AMOUNT_MAX:
        raise Invalid("The budget must be positive, and within what an account can hold.", next_step="Correct the budget.", field="budget")
    return Terms(rate, held)
