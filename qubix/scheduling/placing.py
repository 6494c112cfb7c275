"""Placement as a loop: plan over one snapshot, then one transaction per assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qubix.jobs import news
from qubix.jobs.model import JobState
from qubix.kernel.errors import Conflict
from qubix.kernel.events import Event
from qubix.kernel.ids import new_id
from qubix.kernel.money import limit_ms
from qubix.scheduling.model import LIMIT_MS_MIN, Rules
from qubix.scheduling.placement import Candidate, Choice, Round, Slot, Unplaceable, best, explain, keep_free

if TYPE_CHECKING:
    from qubix.capacity.model import DeviceUse
    from qubix.capacity.service import CapacityService
    from qubix.scheduling.placement_store import Claimed, Place, PlacementStore, Waiting

BATCH_MAX: Final = 100
"""How many waiting jobs one round looks at: the longest waiting, and as many of the others, in turn."""
EXPLAINED_MAX: Final = 100_000
"""How many offers one round asks why they do not fit, summed over its jobs: some tenths of a second."""
PACE: Final = 4.0
LOOK_SMALL_S: Final = 0.05
"""A look through the whole market that is no longer than this needs no rest after it."""
LEASE_SLACK_S: Final = 120.0
"""A device stays leased this much longer than the attempt may run: start, upload of results, the sweeper."""


class PlanStale(Conflict):
    """Between the plan and its assignment something else came first."""

    code = "plan_stale"


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """A job and where the plan puts it."""

    job_id: UUID
    choice: Choice


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A job that the plan cannot place, and the devices kept for it where it is the oldest such job."""

    job_id: UUID
    owner_id: UUID
    why: Unplaceable
    told: dict[str, Any] | None
    keep: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One round's decisions."""

    assignments: tuple[Assignment, ...] = ()
    refusals: tuple[Refusal, ...] = ()


_NOT_HERE: Final = Unplaceable("not_on_shortlist", "None of the offers on the shortlist fits.", {}, {})


def make_plan(
    waiting: Sequence[Waiting], candidates: Sequence[Candidate], *, whole: bool = True, first: Plan | None = None, turn: int = 0
) -> Plan:
    """Place the waiting jobs in their order; what one takes, the next does not see. The first that cannot be placed but
    would fit a busy node has that node's free devices kept for it, so small jobs do not starve a large one. Pure.

    Args: whole, whether the candidates are the whole market; on a shortlist a job keeps the node that it was given, and gets no
        other; first, what a plan on a shortlist decided, whose choices stand while their devices are not kept for an older job;
        turn, which of the jobs has its reason looked for anew even if there is not the time to do so for all (EXPLAINED_MAX).
    """
    assignments: list[Assignment] = []
    refusals: list[Refusal] = []
    this = Round(candidates)
    reserved = False
    explained = 0
    decided = {one.job_id: one.choice for one in first.assignments} if first is not None else {}
    scarce = len(waiting) * len(this.candidates) > EXPLAINED_MAX
    for n, job in enumerate(waiting):
        choice = decided.get(job.wanted.job_id)
        if choice is not None and not this.taken.isdisjoint(slot.device_id for slot in choice.slots):
            continue
        spared = scarce and n != turn % len(waiting) and not _is_first(job, explained, len(this.candidates), reserved=reserved)
        if choice is None and not (spared and first is not None):
            choice = best(job.wanted, this.candidates)
        if choice is not None:
            assignments.append(Assignment(job.wanted.job_id, choice))
            this.take((slot.device_id for slot in choice.slots), job.wanted.job_id)
            continue
        if spared:
            continue
        if not whole and job.wanted.reserved_node_id is None:  # a shortlist tells no reason, and nothing is kept
            refusals.append(Refusal(job.wanted.job_id, job.owner_id, _NOT_HERE, dict(job.told) if job.told else None))
            continue
        explained += len(this.candidates)
        why = explain(job.wanted, this.candidates)
        keep: tuple[int, ...] = ()
        given = whole or why.reserve_node_id == job.wanted.reserved_node_id
        if why.reserve_node_id is not None and given and not reserved:
            reserved = True
            keep = keep_free(job.wanted, why.reserve_node_id, this.candidates)
            this.take(keep, job.wanted.job_id)
        else:
            why = dataclasses.replace(why, reserve_node_id=None)
        refusals.append(Refusal(job.wanted.job_id, job.owner_id, why, dict(job.told) if job.told else None, keep))
    return Plan(tuple(assignments), tuple(refusals))


def batches(assignments: Sequence[Assignment], *, most: int) -> list[list[Assignment]]:
    """The assignments of each node together, `most` at a time, in the order of each batch's first. Pure."""
    found: list[list[Assignment]] = []
    open_ones: dict[UUID, list[Assignment]] = {}
    for one in assignments:
        batch = open_ones.get(one.choice.candidate.node_id)
        if batch is None or len(batch) == most:
            batch = open_ones[one.choice.candidate.node_id] = []
            found.append(batch)
        batch.append(one)
    return found


def _is_first(job: Waiting, explained: int, more: int, *, reserved: bool) -> bool:
    """Whether a job's reason is looked for where there is not the time for all: it has none yet, or may have a node kept for it.

    Args: explained, offers asked in this round; more, those that this job would ask; reserved, whether a node is kept for an older one.
    """
    told = job.told or {}
    may_keep = "rejected" not in told or told.get("code") in ("busy", "barred")
    return (not told or (may_keep and not reserved)) and (explained == 0 or explained + more <= EXPLAINED_MAX)


class Pace:
    """How often the whole market is looked through: so rarely that it takes at most a fifth of the time, in a small market always.

    Most rounds look at a shortlist. The whole market is read to say why a job cannot be placed, and which node is worth
    keeping for it. `after`: how far down the queue the rounds have come, past those that wait longest; `turn`: looks so far.
    """

    def __init__(self) -> None:
        self._next = 0.0
        self.turn = 0
        self.after: Place | None = None

    def due(self, now: float) -> bool:
        """Args: now, monotonic seconds."""
        return now >= self._next

    def looked(self, now: float, took_s: float) -> None:
        """It was looked through until `now`, for `took_s` seconds."""
        self.turn += 1
        self._next = now + (PACE * took_s if took_s > LOOK_SMALL_S else 0.0)


class PlacingService:
    """Places waiting jobs.

    Args: store and capacity over the transaction's connection; tell, adds an event; wake, after the commit; pace, the process's;
        monotonic, its clock.
    """

    def __init__(
        self,
        store: PlacementStore,
        *,
        capacity: CapacityService,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        rules: Rules,
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._pace = pace
        self._monotonic = monotonic
        self._store = store
        self._capacity = capacity
        self._tell = tell
        self._wake = wake
        self._rules = rules

    async def plan(self, *, most: int = BATCH_MAX) -> Plan:
        """Read what waits and what is offered, and decide. Locks nothing; every decision is checked again by `assign`.

        Where all can be placed, the offers that they may get are all that is read. Where one cannot, the whole market is, as
        often as `Pace` allows; between two such looks a job keeps the reason and the node that it was given.
        """
        waiting = await self._queue(most)
        if not waiting:
            return Plan()
        shortlist = await self._store.shortlist([job.wanted for job in waiting], self._rules)
        plan = make_plan(waiting, await self._candidates(shortlist), whole=False)
        if not plan.refusals:
            return plan
        began = self._monotonic()
        if not self._pace.due(began):
            kept = (_as_told(refusal) for refusal in plan.refusals)
            return dataclasses.replace(plan, refusals=tuple(refusal for refusal in kept if refusal is not None))
        plan = make_plan(waiting, await self._candidates(None), first=plan, turn=self._pace.turn)
        now = self._monotonic()
        self._pace.looked(now, now - began)
        return plan

    async def _queue(self, most: int) -> list[Waiting]:
        """The jobs that wait longest and, behind them, the next in turn: `most` that fit nowhere must not hide the others."""
        oldest = await self._store.waiting(self._rules, most=most)
        if len(oldest) < most:
            self._pace.after = None
            return oldest
        behind = max(self._pace.after or oldest[-1].place, oldest[-1].place)
        others = await self._store.waiting(self._rules, most=most, after=behind)
        self._pace.after = others[-1].place if len(others) == most else None
        return oldest + others

    async def _candidates(self, offer_ids: Sequence[UUID] | None) -> list[Candidate]:
        offers = await self._store.offers(offer_ids, self._rules)
        return with_slots(offers, await self._capacity.uses(None if offer_ids is None else sorted({offer.node_id for offer in offers})))

    async def assign(self, assignment: Assignment) -> UUID:
        """Write the attempt and its device leases and change the node's desired state, in one transaction.

        Returns: the attempt's id.
        Raises: PlanStale when the node, the job, a device or the money is no longer as planned; the next round plans anew.
        """
        choice = assignment.choice
        offer = choice.candidate
        job = await self._store.claim(assignment.job_id, node_id=offer.node_id, offer_id=offer.offer_id, rules=self._rules)
        if job is None or job.left is None or job.price_per_hour != offer.price_per_hour:
            raise PlanStale("the job, its node or the offer has changed since the plan")
        limit = min(limit_ms(job.left, choice.rate), job.duration_max_s * 1000)
        if limit < LIMIT_MS_MIN:
            raise PlanStale(f"what is left of the budget pays for {limit} ms only")
        attempt_id = new_id()
        device_ids = [slot.device_id for slot in choice.slots]
        holders = [holder for holder in (job.quote_id, job.job_id) if holder is not None]
        ttl_s = limit / 1000 + LEASE_SLACK_S
        if not await self._capacity.lease_to_attempt(attempt_id, device_ids, ttl_s=ttl_s, instead_of=holders):
            raise PlanStale("a device was taken since the plan")
        fence = await self._store.assign(self._attempt(attempt_id, job, choice, limit))
        self._tell(
            news.status_changed(
                job.job_id,
                JobState.ASSIGNED,
                provider_id=offer.provider_id,
                attempt=job.attempts + 1,
                attempt_id=str(attempt_id),
                node_id=str(offer.node_id),
                node=offer.node_name,
                model=offer.model,
                rate=choice.rate,
                fence=fence,
                resumed_from=job.restore_n,
            )
        )
        self._wake("nodes", str(offer.node_id))
        return attempt_id

    async def refuse(self, refusals: tuple[Refusal, ...]) -> int:
        """Tell the owners why their jobs wait, where that is news, and keep a node for the oldest. Returns how many were told."""
        told = 0
        for refusal in refusals:
            why = _why(refusal.why)
            if refusal.keep or refusal.why.reserve_node_id is not None:
                await self._capacity.reserve(refusal.job_id, refusal.keep, ttl_s=self._rules.reserve_s)
            if refusal.told == why or not await self._store.tell_unplaceable(refusal.job_id, why):
                continue
            if refusal.told is None or refusal.told.get("message") != why["message"]:
                told += 1
                shown = {name: why[name] for name in ("code", "message", "relaxation")}
                self._tell(news.status_changed(refusal.job_id, JobState.PENDING, unplaceable=shown))
        return told

    def _attempt(self, attempt_id: UUID, job: Claimed, choice: Choice, limit: int) -> dict[str, Any]:
        return {
            "id": attempt_id,
            "job_id": job.job_id,
            "number": job.attempts + 1,
            "node_id": choice.candidate.node_id,
            "provider_id": choice.candidate.provider_id,
            "offer_id": choice.candidate.offer_id,
            "rate": choice.rate,
            "limit_ms": limit,
            "device_uuids": [slot.device_uuid for slot in choice.slots],
            "start_deadline_s": self._rules.start_deadline_s,
            "restore_attempt_id": job.restore_attempt_id,
            "resumed_from": job.restore_n,
        }


def with_slots(offers: Sequence[Candidate], uses: Sequence[DeviceUse]) -> list[Candidate]:
    """The offers, each with the devices of its node that it is made of."""
    slots: dict[tuple[UUID, str], list[Slot]] = {}
    for use in uses:
        slots.setdefault((use.node_id, use.model), []).append(
            Slot(use.device_id, use.device_uuid, use.vram_bytes, use.holder_id, use.quarantined)
        )
    return [dataclasses.replace(offer, slots=tuple(slots.get((offer.node_id, offer.model), ()))) for offer in offers]


def _as_told(refusal: Refusal) -> Refusal | None:
    """A refusal found on a shortlist: no reason is read off it, but the job keeps its node. None where it has none."""
    if refusal.why.reserve_node_id is None or refusal.told is None:
        return None
    told = refusal.told
    why = Unplaceable(told["code"], told["message"], told["relaxation"], told["rejected"], refusal.why.reserve_node_id)
    return dataclasses.replace(refusal, why=why)


def _why(why: Unplaceable) -> dict[str, Any]:
    return {
        "code": why.code,
        "message": why.message,
        "relaxation": dict(why.relaxation),
        "rejected": dict(why.rejected),
        "reserve_node_id": None if why.reserve_node_id is None else str(why.reserve_node_id),
    }
