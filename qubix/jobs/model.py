"""Jobs and attempts: their states, what may follow what, and the progress rule. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from qubix.escrow.model import Fault
from qubix.kernel.errors import Conflict
from qubix.kernel.money import Qu
from qubix.market.model import Needs


class JobState(enum.StrEnum):
    """Where a job stands."""

    DRAFT = "DRAFT"
    QUOTED = "QUOTED"
    AWAITING_FUNDS = "AWAITING_FUNDS"
    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Nothing follows."""
        return self in _JOB_FINAL

    @property
    def live(self) -> bool:
        """An attempt exists that is not over."""
        return self in (JobState.ASSIGNED, JobState.RUNNING)


class JobStep(enum.StrEnum):
    """What happens to a job."""

    QUOTE = "quote"
    AWAIT_FUNDS = "await_funds"
    FUND = "fund"
    ASSIGN = "assign"
    RUN = "run"
    RETRY = "retry"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


class AttemptState(enum.StrEnum):
    """Where an attempt stands."""

    CREATED = "CREATED"
    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"

    @property
    def final(self) -> bool:
        """Nothing follows."""
        return self not in ATTEMPT_LIVE


class AttemptStep(enum.StrEnum):
    """What happens to an attempt."""

    ACCEPT = "accept"
    RUN = "run"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    LOSE = "lose"


_JOB_FINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
ATTEMPT_LIVE: Final = frozenset({AttemptState.CREATED, AttemptState.ACCEPTED, AttemptState.RUNNING})

JOB_TABLE: Final[Mapping[tuple[JobState, JobStep], JobState]] = {
    (JobState.DRAFT, JobStep.QUOTE): JobState.QUOTED,
    (JobState.DRAFT, JobStep.AWAIT_FUNDS): JobState.AWAITING_FUNDS,
    (JobState.DRAFT, JobStep.FUND): JobState.PENDING,
    (JobState.DRAFT, JobStep.CANCEL): JobState.CANCELLED,
    (JobState.QUOTED, JobStep.AWAIT_FUNDS): JobState.AWAITING_FUNDS,
    (JobState.QUOTED, JobStep.FUND): JobState.PENDING,
    (JobState.QUOTED, JobStep.CANCEL): JobState.CANCELLED,
    (JobState.AWAITING_FUNDS, JobStep.FUND): JobState.PENDING,
    (JobState.AWAITING_FUNDS, JobStep.CANCEL): JobState.CANCELLED,
    (JobState.PENDING, JobStep.ASSIGN): JobState.ASSIGNED,
    (JobState.PENDING, JobStep.FAIL): JobState.FAILED,
    (JobState.PENDING, JobStep.CANCEL): JobState.CANCELLED,
    (JobState.ASSIGNED, JobStep.RUN): JobState.RUNNING,
    (JobState.ASSIGNED, JobStep.RETRY): JobState.PENDING,
    (JobState.ASSIGNED, JobStep.FAIL): JobState.FAILED,
    (JobState.ASSIGNED, JobStep.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobStep.RETRY): JobState.PENDING,
    (JobState.RUNNING, JobStep.COMPLETE): JobState.COMPLETED,
    (JobState.RUNNING, JobStep.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobStep.CANCEL): JobState.CANCELLED,
}

ATTEMPT_TABLE: Final[Mapping[tuple[AttemptState, AttemptStep], AttemptState]] = {
    (AttemptState.CREATED, AttemptStep.ACCEPT): AttemptState.ACCEPTED,
    (AttemptState.CREATED, AttemptStep.FAIL): AttemptState.FAILED,
    (AttemptState.CREATED, AttemptStep.CANCEL): AttemptState.CANCELLED,
    (AttemptState.CREATED, AttemptStep.LOSE): AttemptState.LOST,
    (AttemptState.ACCEPTED, AttemptStep.RUN): AttemptState.RUNNING,
    (AttemptState.ACCEPTED, AttemptStep.FAIL): AttemptState.FAILED,
    (AttemptState.ACCEPTED, AttemptStep.CANCEL): AttemptState.CANCELLED,
    (AttemptState.ACCEPTED, AttemptStep.LOSE): AttemptState.LOST,
    (AttemptState.RUNNING, AttemptStep.SUCCEED): AttemptState.SUCCEEDED,
    (AttemptState.RUNNING, AttemptStep.FAIL): AttemptState.FAILED,
    (AttemptState.RUNNING, AttemptStep.CANCEL): AttemptState.CANCELLED,
    (AttemptState.RUNNING, AttemptStep.LOSE): AttemptState.LOST,
}


class TooManyUnpaid(Conflict):
    """Each job that waits for its payment holds devices that nobody has paid for."""

    code = "too_many_unpaid"


class Pay(enum.StrEnum):
    """Where a job's money comes from: the wallet as it is, or a payment on the chain that fills it first."""

    WALLET = "wallet"
    CHAIN = "chain"


class WrongStep(Conflict):
    """The state does not allow this step."""

    code = "wrong_state"


def job_after(state: JobState, step: JobStep) -> JobState:
    """The job's state after `step`. Raises: WrongStep when the table does not know the pair."""
    after = JOB_TABLE.get((state, step))
    if after is None:
        raise WrongStep(f"a job that is {state} cannot {step}", next_step="look at the job again; its state has moved on")
    return after


def attempt_after(state: AttemptState, step: AttemptStep) -> AttemptState:
    """The attempt's state after `step`. Raises: WrongStep when the table does not know the pair."""
    after = ATTEMPT_TABLE.get((state, step))
    if after is None:
        raise WrongStep(f"an attempt that is {state} cannot {step}")
    return after


def progress_after(known: float, reported: float, *, ended_well: bool = False) -> float:
    """The job's progress, 0 to 100, after an attempt reported `reported`: the highest reached over all attempts.

    Only success is 100; until then a report counts up to 99.9, so 100 always means done.
    """
    if ended_well:
        return 100.0
    return max(known, min(max(reported, 0.0), 99.9))


@dataclasses.dataclass(frozen=True, slots=True)
class InputRequest:
    """An upload of the owner, under the name that the job sees (`/job/<name>`)."""

    name: str
    upload_id: UUID


@dataclasses.dataclass(frozen=True, slots=True)
class JobRequest:
    """What a consumer asks for.

    Args: kind, a job of the library; params, its parameters; needs, over those of the library job: members of
        qubix.market.model.Needs (price_max is per GPU-hour), and memory_bytes, disk_bytes and cpus, which are the sandbox's
        limits as well; quote_id or offer_id, where one was chosen; duration_max_s, the longest paid run (None: what the
        budget pays for, or the library job's); budget, the ceiling itself in place of rate × duration; price_max, the highest
        price per GPU-hour; wait_s, how long to wait for a matching node (None: the deployment's default);
        retry_own_failures, also retry what was the consumer's own fault; pay, whether to wait for a payment on the chain.
    """

    kind: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""
    inputs: tuple[InputRequest, ...] = ()
    quote_id: UUID | None = None
    offer_id: UUID | None = None
    duration_max_s: int | None = None
    budget: int | None = None
    price_max: int | None = None
    wait_s: int | None = None
    retry_own_failures: bool = False
    pay: Pay = Pay.WALLET


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """An input as stored: the bytes are the blob's."""

    name: str
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A job as its owner sees it. Amounts in whole units, times in UTC, progress 0 to 100."""

    id: UUID
    owner_id: UUID
    name: str
    kind: str
    params: Mapping[str, str]
    needs: Needs
    state: JobState
    fence: int
    attempts_max: int
    rate_max: Qu
    ceiling: Qu
    duration_max_s: int
    asset: int
    quote_id: UUID | None
    offer_id: UUID | None
    retry_own_failures: bool
    progress: float
    operation: str
    reason: str | None
    reason_detail: str | None
    unplaceable: Mapping[str, Any] | None
    wait_until: dt.datetime | None
    cancel_requested_at: dt.datetime | None
    created_at: dt.datetime
    pending_at: dt.datetime | None
    started_at: dt.datetime | None
    ended_at: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job on one node. Times in UTC, durations in milliseconds, rate in units per hour for all its devices."""

    id: UUID
    job_id: UUID
    number: int
    fence: int
    node_id: UUID
    node_name: str
    provider_id: UUID
    offer_id: UUID
    rate: Qu
    limit_ms: int
    state: AttemptState
    device_uuids: tuple[str, ...]
    created_at: dt.datetime
    accepted_at: dt.datetime | None
    running_at: dt.datetime | None
    renewed_at: dt.datetime | None
    reported_at: dt.datetime | None
    ended_at: dt.datetime | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    reason_detail: str | None
    fault: Fault | None
    agent_ms: int | None
    metered_ms: int | None
    charge: Qu | None
    resumed_from: int | None
    restore_failed: bool
    progress: float


@dataclasses.dataclass(frozen=True, slots=True)
class Artefact:
    """A result file of a job."""

    attempt_id: UUID
    job_id: UUID
    name: str
    sha256: str
    size: int
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class LogLine:
    """A piece of a log; `position` grows along the job's whole log and is what a reader resumes from."""

    position: int
    attempt_id: UUID
    attempt_number: int
    stream: str
    offset: int
    text: str
    node_at: dt.datetime
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened to a job."""

    at: dt.datetime
    what: str
    attempt_number: int | None
    detail: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReceiptAttempt:
    """An attempt's line of the receipt."""

    number: int
    node: str
    node_id: UUID
    status: AttemptState
    resumed_from: int | None
    metered_ms: int
    rate: Qu
    charge: Qu
    fault: Fault | None
    reason: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """What a job cost: held = charged + refunded once it is final (before: refunded is None, charged is so far).

    Args: tx_ids, the payments on the chain that funded it; none where the wallet did.
    """

    job_id: UUID
    final: bool
    held: Qu
    charged: Qu
    refunded: Qu | None
    fee: Qu
    escrow_state: str
    attempts: tuple[ReceiptAttempt, ...]
    tx_ids: tuple[str, ...] = ()


__all__ = [
    "ATTEMPT_LIVE", "ATTEMPT_TABLE", "JOB_TABLE", "Artefact", "Attempt", "AttemptState", "AttemptStep", "Fault", "Input", "InputRequest", "Job",
    "JobRequest", "JobState", "JobStep", "LogLine", "Needs", "Pay", "Receipt", "ReceiptAttempt", "TimelineEntry", "TooManyUnpaid", "WrongStep",
    "attempt_after", "job_after", "progress_after",
]  # fmt: skip
