"""Where a job runs: a pure choice among offers, or the reason why not and the smallest change that would help."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from qubix.kernel.money import MS_PER_HOUR, Qu, limit_ms
from qubix.kernel.sizes import gigabytes, told_apart
from qubix.market.filters import region_matches
from qubix.market.model import Needs
from qubix.market.query import model_key
from qubix.scheduling.model import LIMIT_MS_MIN


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A device behind an offer. Args: holder_id, whoever leases it at this moment; quarantined, not usable yet."""

    device_id: int
    device_uuid: str
    vram_bytes: int
    holder_id: UUID | None = None
    quarantined: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An offer and its node as placement sees them.

    Args: price_per_hour, per GPU-hour; takes_work, the node is online, fresh, not paused, draining or without sandbox;
        excuse, why it does not; ram_bytes and cpu_cores of the node; tflops per device; reliability, the provider's share of
        attempts without its fault (None: none ended); slots, all its devices of the offer's model.
    """

    offer_id: UUID
    node_id: UUID
    provider_id: UUID
    node_name: str
    model: str
    region: str
    price_per_hour: Qu
    asset: int
    slots: tuple[Slot, ...]
    takes_work: bool = True
    excuse: str = ""
    ram_bytes: int = 0
    cpu_cores: int = 0
    tflops: float = 0.0
    verified: bool = False
    reliability: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A waiting job.

    Args: rate_max, units per hour for all its GPUs; offer_id, where the consumer pinned one; quote_id, whose leases it may
        take over, with quote_offer_id, tried first; barred, nodes that lost or declined it just now; wary, nodes that did
        so before (used when there is no other); reserved_node_id, the node that was kept for it.
    """

    job_id: UUID
    needs: Needs
    rate_max: Qu
    asset: int
    offer_id: UUID | None = None
    quote_id: UUID | None = None
    quote_offer_id: UUID | None = None
    barred: frozenset[UUID] = frozenset()
    wary: frozenset[UUID] = frozenset()
    reserved_node_id: UUID | None = None
    left: Qu | None = None
    spent: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Run it here, on these devices, at this rate (units per hour for all of them)."""

    candidate: Candidate
    slots: tuple[Slot, ...]
    rate: Qu


@dataclasses.dataclass(frozen=True, slots=True)
class Unplaceable:
    """Why a job waits.

    Args: code, the constraint that is in the way; message, for its owner; relaxation, the smallest change that would match
        an offer as things stand ({} where none would); rejected, per constraint how many offers it ruled out, in the order
        of asking; reserve_node_id, a node that will fit once it is free, to be kept for the oldest job.
    """

    code: str
    message: str
    relaxation: Mapping[str, object]
    rejected: Mapping[str, int]
    reserve_node_id: UUID | None = None


Test = Callable[[Wanted, Candidate], bool]


def _usable(wanted: Wanted, candidate: Candidate) -> tuple[Slot, ...]:
    """The slots that fit and that nobody else holds; those that the job's own quote or reservation holds come first."""
    own = (wanted.quote_id, wanted.job_id)
    fits = [
        slot
        for slot in candidate.slots
        if slot.vram_bytes >= wanted.needs.vram_bytes and not slot.quarantined and (slot.holder_id is None or slot.holder_id in own)
    ]
    return tuple(sorted(fits, key=lambda slot: (slot.holder_id is None, slot.device_id)))


def _enough_memory(wanted: Wanted, candidate: Candidate) -> bool:
    fitting = sum(slot.vram_bytes >= wanted.needs.vram_bytes for slot in candidate.slots)
    return fitting >= max(1, min(wanted.needs.gpus, len(candidate.slots)))


def _named(wanted: Wanted, candidate: Candidate) -> bool:
    return not wanted.needs.gpu_models or _key(candidate.model) in _keys(wanted.needs.gpu_models)


_key = lru_cache(maxsize=4096)(model_key)


@lru_cache(maxsize=4096)
def _keys(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(model_key(name) for name in names)


def _near(wanted: Wanted, candidate: Candidate) -> bool:
    return not wanted.needs.regions or any(region_matches(candidate.region, region.lower()) for region in wanted.needs.regions)


def _trusted(wanted: Wanted, candidate: Candidate) -> bool:
    needs = wanted.needs
    reliable = needs.reliability_min is None or (candidate.reliability is not None and candidate.reliability >= needs.reliability_min)
    return reliable and (needs.verified is None or candidate.verified == needs.verified)


def _affordable(wanted: Wanted, candidate: Candidate) -> bool:
    per_gpu = wanted.needs.price_max
    return candidate.price_per_hour * wanted.needs.gpus <= wanted.rate_max and (per_gpu is None or candidate.price_per_hour <= per_gpu)


def _pays_for_a_start(wanted: Wanted, candidate: Candidate) -> bool:
    rate = Qu(candidate.price_per_hour * wanted.needs.gpus)
    return wanted.left is None or rate == 0 or limit_ms(Qu(max(0, wanted.left)), rate) >= LIMIT_MS_MIN


def _large_node(wanted: Wanted, candidate: Candidate) -> bool:
    needs = wanted.needs
    return candidate.ram_bytes >= needs.ram_bytes and candidate.cpu_cores >= needs.cpu_cores


CONSTRAINTS: Final[tuple[tuple[str, Test], ...]] = (
    ("asset", lambda w, c: c.asset == w.asset),
    ("offer", lambda w, c: w.offer_id is None or c.offer_id == w.offer_id),
    ("gpu_models", _named),
    ("vram", _enough_memory),
    ("gpus", lambda w, c: len(c.slots) >= w.needs.gpus),
    ("region", _near),
    ("node_size", _large_node),
    ("tflops", lambda w, c: c.tflops == 0 or c.tflops >= w.needs.tflops),
    ("trust", _trusted),
    ("price", _affordable),
    ("budget", _pays_for_a_start),
    ("online", lambda w, c: c.takes_work),
    ("barred", lambda w, c: c.node_id not in w.barred),
    ("busy", lambda w, c: len(_usable(w, c)) >= w.needs.gpus),
)
"""In the order of asking: what the job wants first, what only time can change last."""

_PASSING: Final = ("online", "barred", "busy")
_GENTLE: Final = (
    "busy",
    "barred",
    "online",
    "price",
    "budget",
    "region",
    "trust",
    "tflops",
    "vram",
    "offer",
    "gpu_models",
    "node_size",
    "gpus",
)
"""What to give up first."""


def choose(wanted: Wanted, candidates: Sequence[Candidate]) -> Choice | Unplaceable:
    """The best offer for the job, or why there is none. Ties are stable: the order of `candidates` decides."""
    return best(wanted, candidates) or explain(wanted, candidates)


def best(wanted: Wanted, candidates: Sequence[Candidate]) -> Choice | None:
    """The best offer for the job, None where none fits. One that could not be better than what was found is not asked at all."""
    found: Candidate | None = None
    rank: tuple[bool, bool, bool, int] = (True, True, True, 0)
    spare = 0
    for candidate in candidates:
        its = _rank(wanted, candidate)
        if (found is not None and its > rank) or not _fits(wanted, candidate):
            continue
        its_spare = len(_usable(wanted, candidate)) - wanted.needs.gpus
        if found is None or (its, its_spare) < (rank, spare):
            found, rank, spare = candidate, its, its_spare
    if found is None:
        return None
    return Choice(found, _usable(wanted, found)[: wanted.needs.gpus], Qu(found.price_per_hour * wanted.needs.gpus))


def _fits(wanted: Wanted, candidate: Candidate) -> bool:
    for _, test in CONSTRAINTS:  # noqa: SIM110  (a generator costs more than the tests)
        if not test(wanted, candidate):
            return False
    return True


def _rank(wanted: Wanted, candidate: Candidate) -> tuple[bool, bool, bool, int]:
    """The smaller the better; of equals, the one that has the fewest devices to spare. Most jobs have no preference: they ask no ids."""
    return (
        bool(wanted.wary) and candidate.node_id in wanted.wary,
        wanted.quote_offer_id is None or candidate.offer_id != wanted.quote_offer_id,
        wanted.reserved_node_id is None or candidate.node_id != wanted.reserved_node_id,
        candidate.price_per_hour,
    )


def explain(wanted: Wanted, candidates: Sequence[Candidate]) -> Unplaceable:
    """The funnel of rejections, the smallest relaxation, and the node worth waiting for.

    Every constraint is asked once of every candidate; the rest looks at the few sets of constraints that were found broken.
    """
    broken: dict[int, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        broken[sum(bit for bit, test in _BITS if not test(wanted, candidate))].append(place)
    rejected = _rejected(broken)
    needed = _smallest_set(broken)
    if not needed:
        return Unplaceable("no_offers", "No machine is on offer now.", {}, rejected)
    dropped = frozenset(name for name, bit in _BIT.items() if bit & needed)
    matching = [candidates[place] for place in sorted(place for mask, places in broken.items() if not mask & ~needed for place in places)]
    if len(dropped - set(_PASSING)) > 1:  # changes that only help together must be read off one offer
        matching = [min(matching, key=lambda candidate: candidate.price_per_hour)]
    code = next(name for name in reversed(_GENTLE) if name in dropped)
    relaxation = {name: _relaxed(name, wanted, matching) for name in dropped if name not in _PASSING}
    reserve = _worth_waiting_for(wanted, matching) if dropped <= {"busy", "barred"} else None
    told = [name for name in _GENTLE if name in dropped and not (name == "busy" and _free_once_relaxed(wanted, matching, relaxation))]
    told.sort(key=lambda name: name in _PASSING)  # what must change first: the rest is said of the offers that it would open
    return Unplaceable(
        code, " ".join(_said(name, wanted, matching, _count(matching, told[0])) for name in told), relaxation, rejected, reserve
    )


_BIT: Final = {name: 1 << n for n, (name, _) in enumerate(CONSTRAINTS)}
_BITS: Final = tuple((_BIT[name], test) for name, test in CONSTRAINTS)


def _rejected(broken: Mapping[int, Sequence[int]]) -> dict[str, int]:
    """Per constraint, how many candidates it was the first to rule out."""
    counts = dict.fromkeys(_BIT.values(), 0)
    for mask, places in broken.items():
        if mask:
            counts[mask & -mask] += len(places)
    return {name: counts[bit] for name, bit in _BIT.items() if counts[bit]}


def _free_once_relaxed(wanted: Wanted, matching: Sequence[Candidate], relaxation: Mapping[str, object]) -> bool:
    """Whether a device that is too small or one of too few only counts as in use: its need relaxed, it could be had now."""
    changes: dict[str, Any] = {"vram_bytes": 0} if "vram" in relaxation else {}
    changes |= {"gpus": relaxation["gpus"]} if "gpus" in relaxation else {}
    relaxed = dataclasses.replace(wanted, needs=dataclasses.replace(wanted.needs, **changes))
    return bool(changes) and any(dict(CONSTRAINTS)["busy"](relaxed, candidate) for candidate in matching)


def _smallest_set(broken: Mapping[int, object]) -> int:
    """The fewest constraints whose absence lets an offer match, the gentlest first; those that pass with time cost nothing.

    Args: broken, by the sets of constraints that some candidate breaks. Returns: what the best of the matching candidates breaks.
    """
    if not broken:
        return 0
    ranks = {mask: _gentleness(mask) for mask in broken}
    _, lasting, waiting = min(ranks.values())
    allowed = sum(_BIT[_LASTING[n]] for n in lasting) | sum(_BIT[name] for name in _WAITS[waiting])
    return min((mask for mask in broken if not mask & ~allowed), key=int.bit_count)


_LASTING: Final = tuple(name for name in _GENTLE if name not in _PASSING)
_WAITS: Final = ((), ("busy",), ("busy", "barred"), _PASSING)


def _gentleness(mask: int) -> tuple[int, tuple[int, ...], int]:
    """How much a candidate that breaks these asks for: how many lasting constraints, which, and how long a wait beside them."""
    lasting = tuple(n for n, name in enumerate(_LASTING) if mask & _BIT[name])
    waiting = next(n for n, names in enumerate(_WAITS) if not mask & _PASSING_BITS & ~sum(_BIT[name] for name in names))
    return len(lasting), lasting, waiting


_PASSING_BITS: Final = sum(_BIT[name] for name in _PASSING)


def _relaxed(name: str, wanted: Wanted, matching: Sequence[Candidate]) -> object:
    if name == "price":
        return min(candidate.price_per_hour * min(wanted.needs.gpus, len(candidate.slots)) for candidate in matching)
    if name == "budget":
        rate = min(candidate.price_per_hour * min(wanted.needs.gpus, len(candidate.slots)) for candidate in matching)
        return wanted.spent - (-rate * LIMIT_MS_MIN // MS_PER_HOUR)
    if name == "region":
        return sorted({candidate.region for candidate in matching})
    if name == "vram":
        return max(slot.vram_bytes for candidate in matching for slot in candidate.slots)
    if name == "gpus":
        return max(len(candidate.slots) for candidate in matching)
    if name == "gpu_models":
        return sorted({candidate.model for candidate in matching})
    if name == "node_size":
        best = _largest(matching)
        return {"ram_bytes": best.ram_bytes, "cpu_cores": best.cpu_cores}
    if name == "tflops":
        return max(candidate.tflops for candidate in matching)
    if name == "trust":
        best_share = max((candidate.reliability or 0.0 for candidate in matching), default=0.0)
        return {"reliability_min": best_share, "verified": any(candidate.verified for candidate in matching)}
    return [str(candidate.offer_id) for candidate in matching[:5]]


def _said(name: str, wanted: Wanted, matching: Sequence[Candidate], these: str) -> str:
    value = None if name in _PASSING else _relaxed(name, wanted, matching)
    match name:
        case "busy":
            return f"{these} but every device is in use: it starts when one is free."
        case "barred":
            return f"{these} but lost or declined this job a moment ago: it is tried again shortly."
        case "online":
            return f"{these} but {'takes' if len(matching) == 1 else 'take'} no work now ({matching[0].excuse or 'offline'})."
        case "price":
            return (
                f"The cheapest offer that fits costs {value} an hour, the job allows {wanted.rate_max}: raise the price limit to {value}."
            )
        case "budget":
            return (
                f"What is left of its budget, {wanted.left}, pays for less than {LIMIT_MS_MIN / 1000:g} s of any offer that fits:"
                f" a budget of {value} is the least that would."
            )
        case "region":
            return f"None in {', '.join(wanted.needs.regions)}: it would match in {', '.join(_names(value))}."
        case "vram":
            asked, there = told_apart(wanted.needs.vram_bytes, max(slot.vram_bytes for candidate in matching for slot in candidate.slots))
            return f"No device has {asked} of memory: {there} would match."
        case "gpus":
            return f"No node has {wanted.needs.gpus} such GPUs: {value} would match."
        case "gpu_models":
            return f"No {' or '.join(wanted.needs.gpu_models)}: it would match with {', '.join(_names(value))}."
        case "tflops":
            return f"No device has {wanted.needs.tflops:g} TFLOPS: {value} would match."
        case "trust":
            return f"None is as reliable or verified as asked: it would match with {_trust(matching)}."
        case "node_size":
            best = _largest(matching)
            return f"No node is that large: the largest that fits otherwise has {gigabytes(best.ram_bytes)} of RAM and {best.cpu_cores} CPU cores."
        case _:
            return "The chosen offer does not fit: leave the offer open."


def _largest(matching: Sequence[Candidate]) -> Candidate:
    return max(matching, key=lambda candidate: (candidate.ram_bytes, candidate.cpu_cores))


def _trust(matching: Sequence[Candidate]) -> str:
    known = [candidate.reliability for candidate in matching if candidate.reliability is not None]
    share = f"a reliability of {max(known):.0%}" if known else "a provider whose reliability is not known yet"
    return share + ("" if any(candidate.verified for candidate in matching) else ", a GPU that is declared and not measured")


def _names(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _count(matching: Sequence[Candidate], first: str) -> str:
    """Args: first, what is told first: where it has to change, these are the offers that would fit then."""
    count = "One offer" if len(matching) == 1 else f"{len(matching)} offers"
    return f"{count} {'fits' if len(matching) == 1 else 'fit'}" if first in _PASSING else f"{count} would fit then,"


def _worth_waiting_for(wanted: Wanted, matching: Sequence[Candidate]) -> UUID | None:
    """The node kept for the job: the one kept already, else that which lacks the fewest devices."""
    open_to_it = [candidate for candidate in matching if candidate.node_id not in wanted.barred] or list(matching)
    if any(candidate.node_id == wanted.reserved_node_id for candidate in open_to_it):
        return wanted.reserved_node_id
    return min(open_to_it, key=lambda candidate: -len(_usable(wanted, candidate))).node_id if open_to_it else None


def keep_free(wanted: Wanted, node_id: UUID, candidates: Sequence[Candidate]) -> tuple[int, ...]:
    """The free devices of `node_id` to keep for the job, at most as many as it needs."""
    usable = [slot for candidate in candidates if candidate.node_id == node_id for slot in _usable(wanted, candidate)]
    return tuple(slot.device_id for slot in usable[: wanted.needs.gpus])


class Round:
    """The candidates of one round of placement: what one job takes, the next does not see.

    `candidates` keeps its order; only the offers whose devices are taken are written anew.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = list(candidates)
        self.taken: set[int] = set()
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, candidate in enumerate(self.candidates):
            for slot in candidate.slots:
                self._places[slot.device_id].append(place)

    def take(self, device_ids: Iterable[int], holder_id: UUID) -> None:
        """`holder_id` has leased these devices."""
        for device_id in device_ids:
            self.taken.add(device_id)
            for place in self._places[device_id]:
                candidate = self.candidates[place]
                slots = tuple(
                    dataclasses.replace(slot, holder_id=holder_id) if slot.device_id == device_id else slot for slot in candidate.slots
                )
                self.candidates[place] = dataclasses.replace(candidate, slots=slots)
