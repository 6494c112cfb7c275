"""Ends: an attempt's terminal row, its job's next state and the settlement, in one transaction, exactly once.

The controller alone calls these; each method is one transaction, made under the locks of node, job and attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from qubix.escrow.model import Outcome, lines
from qubix.jobs import news
from qubix.jobs.model import AttemptStep, JobState, JobStep, attempt_after, job_after
from qubix.kernel.events import Event
from qubix.kernel.money import Qu, limit_ms
from qubix.scheduling import faults
from qubix.scheduling.faults import Verdict
from qubix.scheduling.model import DECLINED, LIMIT_GRACE_S, LIMIT_MS_MIN, Live, Rules, declined, overdue

if TYPE_CHECKING:
    from qubix.capacity.service import CapacityService
    from qubix.escrow.service import EscrowService
    from qubix.scheduling.end_store import EndStore

UNPAID: Final = "the payment was not in the wallet before the quote ran out; what comes stays in the wallet: make the job again to use it"
BATCH_MAX: Final = 50
"""How many ends one loop step looks for."""


class EndService:
    """Ends attempts and jobs.

    Args: store, capacity, escrow over the transaction's connection; tell, adds an event to its outbox; wake, after the
        commit; rules, the deployment's deadlines.
    """

    def __init__(
        self,
        store: EndStore,
        *,
        capacity: CapacityService,
        escrow: EscrowService,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        rules: Rules,
    ) -> None:
        self._store = store
        self._capacity = capacity
        self._escrow = escrow
        self._tell = tell
        self._wake = wake
        self._rules = rules

    async def reported(self, *, most: int = BATCH_MAX) -> list[UUID]:
        """Attempts whose end was reported and waits for `conclude`."""
        return await self._store.reported(most=most)

    async def conclude(self, attempt_id: UUID) -> bool:
        """End an attempt that reported its end (or was declined): terminal row, job state, settlement.

        Returns: whether it ended now. False: it had ended already, or the news of its node's death is awaited.
        """
        live = await self._store.lock(attempt_id)
        if live is None or not live.is_live or live.reported_at is None:
            return False
        if live.exit == DECLINED:
            await self._end(live, declined(live), counted=False)
            return True
        ending = live.ending()
        if faults.waits_for_death(ending) and (live.now - live.reported_at).total_seconds() < faults.DEATH_WINDOW_S:
            return False
        await self._end(live, faults.judge(ending, retry_own_failures=live.retry_own_failures))
        return True

    async def overdue(self, *, most: int = BATCH_MAX) -> list[UUID]:
        """Attempts that may be over without a report; `sweep` judges each under its locks."""
        return await self._store.overdue(self._rules, grace_s=LIMIT_GRACE_S, most=most)

    async def sweep(self, attempt_id: UUID) -> bool:
        """End an attempt whose time is over: LOST, or CANCELLED when its node did not confirm. Returns whether it ended now."""
        live = await self._store.lock(attempt_id)
        verdict = None if live is None else overdue(live, self._rules)
        if live is None or verdict is None:
            return False
        await self._end(live, verdict, counted=verdict.reason != "not_accepted")
        return True

    async def idle(self, *, most: int = BATCH_MAX) -> list[UUID]:
        """Jobs without an attempt that may be over; `end_idle` judges each under its lock. Call it after `beat`."""
        return await self._store.idle(most=most)

    async def end_idle(self, job_id: UUID) -> bool:
        """End a job without an attempt that was cancelled, not paid in time or not matched in time. Returns whether it ended now.

        What its quote holds goes back to the market at once. A payment that comes later stays in the wallet.
        """
        idle = await self._store.lock_idle(job_id)
        if idle is None:
            return False
        for holder in (idle.job_id, idle.quote_id):
            if holder is not None:
                await self._capacity.release(holder)
        if idle.cancelled:
            await self._end_job(idle.job_id, idle.state, JobStep.CANCEL, "cancelled", "cancelled by its owner", None)
        elif idle.state is JobState.AWAITING_FUNDS:
            await self._end_job(idle.job_id, idle.state, JobStep.CANCEL, "expired", UNPAID, None)
        else:
            why = (idle.unplaceable or {}).get("message", "no node matched in time")
            await self._end_job(idle.job_id, idle.state, JobStep.FAIL, "no_match", why, None)
        return True

    async def beat(self) -> float:
        """The sweeper's own heartbeat; call it before a sweep. Returns the pause that was added to every lease, in seconds."""
        return await self._store.beat(gap_max_s=self._rules.beat_gap_s)

    async def _end(self, live: Live, verdict: Verdict, *, counted: bool = True) -> None:
        after = attempt_after(live.state, verdict.step)
        await self._store.end_attempt(
            live.attempt_id,
            state=after.value,
            fault=verdict.fault.value,
            reason=verdict.reason,
            detail=verdict.detail[:2000],
            counted=counted,
        )
        if live.reported_at is None:
            await self._capacity.quarantine(live.attempt_id)
        await self._capacity.release(live.attempt_id)
        await self._store.renew_generation(live.node_id)
        self._wake("nodes", str(live.node_id))
        await self._next(live, verdict, counted=counted)

    async def _next(self, live: Live, verdict: Verdict, *, counted: bool) -> None:
        uses, funded = await self._store.uses(live.job_id)
        so_far = lines(uses, funded)
        await self._store.charge(so_far)
        told = {"attempt": live.number, "attempt_id": str(live.attempt_id), "reason": verdict.reason, "message": verdict.detail}
        if verdict.step is AttemptStep.SUCCEED:
            await self._end_job(live.job_id, live.job_state, JobStep.COMPLETE, verdict.reason, "", live)
        elif live.cancel_requested_at is not None:
            await self._end_job(live.job_id, live.job_state, JobStep.CANCEL, "cancelled", "cancelled by its owner", live)
        elif refusal := _no_more(live, verdict, counted=counted, left=funded - sum(line.gross for line in so_far), rules=self._rules):
            await self._end_job(live.job_id, live.job_state, JobStep.FAIL, verdict.reason, refusal, live)
        else:
            after = job_after(live.job_state, JobStep.RETRY)
            await self._store.retry(live.job_id)
            self._tell(news.status_changed(live.job_id, after, provider_id=live.provider_id, fault=verdict.fault.value, **told))
            self._wake("jobs", "")

    async def _end_job(self, job_id: UUID, before: JobState, step: JobStep, reason: str, detail: str, live: Live | None) -> None:
        after = job_after(before, step)
        await self._store.end_job(job_id, after, reason, detail[:2000])
        uses, funded = await self._store.uses(job_id)
        outcome = Outcome(after.value)
        final = lines(uses, funded, outcome=outcome, full_refund=self._rules.full_refund_on_failure)
        await self._store.charge(final)
        charged = sum(line.gross for line in final)
        provider_id = None if live is None else live.provider_id
        members = {"reason": reason, "message": detail, "held": funded, "charged": charged, "refunded": funded - charged}
        which = {} if live is None else {"attempt": live.number, "attempt_id": str(live.attempt_id)}
        self._tell(news.status_changed(job_id, after, provider_id=provider_id, **which, **members))
        self._tell(news.ended(job_id, after, provider_id=provider_id, **members))
        if funded:
            await self._escrow.settle(job_id, outcome, final)
        else:
            await self._escrow.cancel_pending(job_id)


def _no_more(live: Live, verdict: Verdict, *, counted: bool, left: int, rules: Rules) -> str:
    """Why there is no further attempt; empty when there is one."""
    if not verdict.retry:
        return verdict.detail
    if limit_ms(Qu(max(0, left)), live.rate) < LIMIT_MS_MIN:
        return f"{verdict.detail}; nothing of the budget is left for another attempt"
    tries, declines = (live.counted, live.declines) if counted else (live.counted - 1, live.declines + 1)
    if declines >= rules.declines_max:
        return f"{verdict.detail}; {declines} nodes declined it"
    if tries >= live.attempts_max:
        return f"{verdict.detail}; that was attempt {tries} of {live.attempts_max}"
    return ""
