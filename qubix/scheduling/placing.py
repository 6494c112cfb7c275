"""Placement as a loop: plan over one snapshot, then one transaction per assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qubix.jobs import news
from qubix.jobs.model import JobState
from qubix.kernel.errors import Conflict
from qubix.kernel.events import Event
from qubix.kernel.ids import new_id
from qubix.kernel.money import limit_ms
from qubix.scheduling.model import LIMIT_MS_MIN, Rules
from qubix.scheduling.placement import Candidate, Choice, Unplaceable, choose, keep_free, taken

if TYPE_CHECKING:
    from qubix.capacity.service import CapacityService
    from qubix.scheduling.placement_store import Claimed, PlacementStore, Waiting

BATCH_MAX: Final = 100
"""How many waiting jobs one round looks at, the one that waits longest first."""
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


def make_plan(waiting: list[Waiting], candidates: list[Candidate]) -> Plan:
    """Place the waiting jobs in their order; what one takes, the next does not see. The first that cannot be placed but
    would fit a busy node has that node's free devices kept for it, so small jobs do not starve a large one. Pure.
    """
    assignments: list[Assignment] = []
    refusals: list[Refusal] = []
    reserved = False
    for job in waiting:
        found = choose(job.wanted, candidates)
        if isinstance(found, Choice):
            assignments.append(Assignment(job.wanted.job_id, found))
            candidates = taken(candidates, frozenset(slot.device_id for slot in found.slots), job.wanted.job_id)
            continue
        keep: tuple[int, ...] = ()
        if found.reserve_node_id is not None and not reserved:
            reserved = True
            keep = keep_free(job.wanted, found.reserve_node_id, candidates)
            candidates = taken(candidates, frozenset(keep), job.wanted.job_id)
        else:
            found = dataclasses.replace(found, reserve_node_id=None)
        refusals.append(Refusal(job.wanted.job_id, job.owner_id, found, dict(job.told) if job.told else None, keep))
    return Plan(tuple(assignments), tuple(refusals))


class PlacingService:
    """Places waiting jobs.

    Args: store and capacity over the transaction's connection; tell, adds an event; wake, after the commit.
    """

    def __init__(
        self,
        store: PlacementStore,
        *,
        capacity: CapacityService,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        rules: Rules,
    ) -> None:
        self._store = store
        self._capacity = capacity
        self._tell = tell
        self._wake = wake
        self._rules = rules

    async def plan(self, *, most: int = BATCH_MAX) -> Plan:
        """Read what waits and what is offered, and decide. Locks nothing; every decision is checked again by `assign`."""
        waiting = await self._store.waiting(self._rules, most=most)
        if not waiting:
            return Plan()
        return make_plan(waiting, await self._store.candidates(await self._capacity.uses(), self._rules))

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


def _why(why: Unplaceable) -> dict[str, Any]:
    return {
        "code": why.code,
        "message": why.message,
        "relaxation": dict(why.relaxation),
        "rejected": dict(why.rejected),
        "reserve_node_id": None if why.reserve_node_id is None else str(why.reserve_node_id),
    }
