"""What scheduling knows while it decides: the deadlines, a live attempt under its locks. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Final
from uuid import UUID

from qubix.agent.protocol import Exit
from qubix.jobs.model import ATTEMPT_LIVE, AttemptState, AttemptStep, Fault, JobState
from qubix.kernel.money import Qu
from qubix.scheduling.faults import Ending, Verdict

DECLINED: Final = "declined"
"""Stored in place of an Exit when the agent declined the attempt before its start."""
INPUT_BYTES_PER_S: Final = 1_000_000
"""The slowest link that deadlines allow for, when inputs are fetched and when results are sent."""
UPLOAD_MAX_S: Final = 3600.0
"""However much a job may write, its results are not waited for longer than this past its limit."""
LIMIT_MS_MIN: Final = 1000
"""What is left of a budget must pay for at least this long, or no attempt starts."""
LIMIT_GRACE_S: Final = 30.0
"""An attempt of which nothing is heard this long past its limit has an agent, or a link, that does not keep limits."""
RUNNING_LATE_MS: Final = 30_000
"""How much later than the start its `running` may have been stored: so much less the database's clock may show of a whole run."""

WEB_BEAT_S: Final = 2.0
WEB_GAP_S: Final = 6.0
"""When no replica of the web layer has beaten for this long, no agent is heard: the platform is away, not its nodes."""
WEB_RETURN_S: Final = 60.0
"""So long after the web layer is back, what became of an attempt meanwhile is not laid at its provider's door."""
AGENT_LOG_BYTES_MAX: Final = 1 << 20
"""How much of an agent's own lines is kept per attempt, beside the job's output."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """The deployment's deadlines and limits.

    Args: lost_bar_s and declined_bar_s, how long a node that lost or declined a job is not offered it again;
        node_silence_s, after which a silent node gets no new attempts; reserve_s, how long a node stays reserved for the
        oldest job without a fresh decision; beat_gap_s, a pause of the sweeper beyond this is added to every lease.
    """

    lease_ttl_s: float = 20.0
    start_deadline_s: float = 10.0
    run_deadline_s: float = 30.0
    cancel_deadline_s: float = 10.0
    beat_gap_s: float = 5.0
    declines_max: int = 5
    lost_bar_s: float = 60.0
    declined_bar_s: float = 15.0
    node_silence_s: float = 60.0
    reserve_s: float = 15.0
    full_refund_on_failure: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """An attempt and its job, read under the locks of node, job and attempt; times by the database's clock.

    Args: now, that clock; counted, this job's attempts that count as tries, this one included; declines, those that do
        not; agent_ms, as reported with its end; upload_s, how long its results may take over a slow link; storage_failed, the
        platform could not store what the attempt sent last; web_away, the web layer is away, or was a moment ago.
    """

    attempt_id: UUID
    job_id: UUID
    owner_id: UUID
    node_id: UUID
    provider_id: UUID
    job_state: JobState
    state: AttemptState
    number: int
    fence: int
    counted: int
    declines: int
    attempts_max: int
    retry_own_failures: bool
    rate: Qu
    limit_ms: int
    now: dt.datetime
    created_at: dt.datetime
    renewed_at: dt.datetime
    running_at: dt.datetime | None
    reported_at: dt.datetime | None
    start_deadline_at: dt.datetime | None
    cancel_requested_at: dt.datetime | None
    node_dead_at: dt.datetime | None
    socket_open: bool
    exit: str | None
    exit_code: int | None
    signal: int | None
    reason_detail: str | None
    restore_failed: bool
    killed_elsewhere: bool
    agent_ms: int | None = None
    upload_s: float = 0.0
    storage_failed: bool = False
    web_away: bool = False

    @property
    def is_live(self) -> bool:
        """Not over yet."""
        return self.state in ATTEMPT_LIVE

    @property
    def node_died(self) -> bool:
        """The fabric declared the node dead and its socket is closed."""
        return self.node_dead_at is not None and not self.socket_open

    def ending(self) -> Ending:
        """What the fault policy asks about a reported end."""
        return Ending(
            exit=Exit(self.exit or Exit.STOPPED),
            exit_code=self.exit_code,
            signal=self.signal,
            detail=self.reason_detail or "",
            node_died=self.node_dead_at is not None or not self.socket_open,
            cancel_requested=self.cancel_requested_at is not None,
            restore_failed=self.restore_failed,
            killed_elsewhere=self.killed_elsewhere,
            cut_short=self._cut_short(),
            web_away=self.web_away,
        )

    def _cut_short(self) -> bool:
        """Whether it reported its end before its limit was over: min(the database's time, the agent's), as it is metered."""
        if self.running_at is None or self.reported_at is None:
            return True
        stored_ms = (self.reported_at - self.running_at) // dt.timedelta(milliseconds=1) + RUNNING_LATE_MS
        return min(stored_ms, self.agent_ms or 0) < self.limit_ms


def overdue(live: Live, rules: Rules) -> Verdict | None:
    """How the sweeper ends an attempt that has not reported its end; None when it is within its time."""
    if not live.is_live or live.reported_at is not None:
        return None
    if live.cancel_requested_at is not None and (
        live.state is AttemptState.CREATED or _past(live, live.cancel_requested_at, rules.cancel_deadline_s)
    ):
        return Verdict(AttemptStep.CANCEL, Fault.NONE, "cancelled", "cancelled by its owner; the node did not confirm it", False)
    if live.node_died:
        return _lost(live, "node_lost", "the node died")
    if live.state is AttemptState.CREATED:
        if live.start_deadline_at is not None and live.now > live.start_deadline_at:
            return _lost(live, "not_accepted", "the node did not accept it in time")
        return None
    if _past(live, live.renewed_at, rules.lease_ttl_s):
        return _lost(live, "lease_expired", f"the node was silent for more than {rules.lease_ttl_s:g} s")
    if live.state is AttemptState.ACCEPTED:
        if live.start_deadline_at is not None and live.now > live.start_deadline_at:
            return _lost(live, "not_started", "it was accepted but did not start in time")
        return None
    if live.running_at is not None and _past(live, live.running_at, live.limit_ms / 1000 + LIMIT_GRACE_S + live.upload_s):
        # Whether the job itself kept its limit is not known: only its node could have said so.
        return _lost(live, "results_late", "the node did not report its end and results in time")
    return None


def _past(live: Live, since: dt.datetime, seconds: float) -> bool:
    return live.now > since + dt.timedelta(seconds=seconds)


def _lost(live: Live, reason: str, detail: str) -> Verdict:
    if live.storage_failed:
        # It would have ended, or its work been kept, had its bytes been taken: neither side answers for that.
        return Verdict(AttemptStep.LOSE, Fault.PLATFORM, "storage_failed", f"{detail}; the platform could not store what it sent", True)
    if live.web_away:
        return Verdict(AttemptStep.LOSE, Fault.PLATFORM, reason, f"{detail}; the platform's web layer was away", True)
    return Verdict(AttemptStep.LOSE, Fault.PROVIDER, reason, detail, True)


def declined(live: Live) -> Verdict:
    """How an attempt ends that its node declined."""
    return Verdict(AttemptStep.FAIL, Fault.PROVIDER, DECLINED, live.reason_detail or "the node declined it", True)
