"""Escrows and earnings: their states, and the lines that a job's attempts earn. Pure; the same rules stand in SQL."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from qubix.kernel.money import MS_PER_HOUR, Asset, Qu, charge, fee


class EscrowState(enum.StrEnum):
    """Where a consumer's locked money stands."""

    PENDING = "PENDING"
    LOCKED = "LOCKED"
    DISPUTED = "DISPUTED"
    RELEASED = "RELEASED"
    REFUNDED = "REFUNDED"
    SPLIT = "SPLIT"


class EarningState(enum.StrEnum):
    """Where a line's money stands."""

    PENDING = "PENDING"
    FROZEN = "FROZEN"
    PAID = "PAID"
    REVERSED = "REVERSED"
    SPLIT = "SPLIT"


class Outcome(enum.StrEnum):
    """The job's final state, as settlement sees it."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ESCROW_WAYS: Final[Mapping[EscrowState, frozenset[EscrowState]]] = {
    EscrowState.PENDING: frozenset({EscrowState.LOCKED, EscrowState.REFUNDED}),
    EscrowState.LOCKED: frozenset({EscrowState.DISPUTED, EscrowState.RELEASED, EscrowState.REFUNDED, EscrowState.SPLIT}),
    EscrowState.DISPUTED: frozenset({EscrowState.RELEASED, EscrowState.REFUNDED, EscrowState.SPLIT}),
    EscrowState.RELEASED: frozenset(),
    EscrowState.REFUNDED: frozenset(),
    EscrowState.SPLIT: frozenset(),
}
EARNING_WAYS: Final[Mapping[EarningState, frozenset[EarningState]]] = {
    EarningState.PENDING: frozenset({EarningState.PAID, EarningState.FROZEN}),
    EarningState.FROZEN: frozenset({EarningState.PAID, EarningState.REVERSED, EarningState.SPLIT}),
    EarningState.PAID: frozenset(),
    EarningState.REVERSED: frozenset(),
    EarningState.SPLIT: frozenset(),
}


def is_open(state: EscrowState) -> bool:
    """Whether money may still be in the escrow."""
    return bool(ESCROW_WAYS[state])


def settled_state(outcome: Outcome, paid: Qu, metered: Qu) -> EscrowState:
    """How an escrow ends that pays `paid` of the `metered` total; they differ only by an arbiter's ruling."""
    if outcome is Outcome.COMPLETED and paid == metered:
        return EscrowState.RELEASED
    return EscrowState.REFUNDED if paid == 0 else EscrowState.SPLIT


class AttemptEnd(enum.StrEnum):
    """How an attempt ended; ALIVE for one that has not."""

    ALIVE = "ALIVE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


class Fault(enum.StrEnum):
    """Whose fault the end was."""

    NONE = "none"
    CONSUMER = "consumer"
    PROVIDER = "provider"
    PLATFORM = "platform"


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """What one attempt did, as far as money cares.

    Args: attempt, its id as text, the name of its line; payee, the provider's owner; rate, units per hour, all devices;
        limit_ms, as granted; running_at, the database's time of `running` (None: it never ran); until, the database's time
        of the terminal frame, of the last renewal for LOST, of now for ALIVE; agent_ms, the agent's monotonic time of the
        sandbox where it told it; cancel_requested_at, after which nothing counts; checkpoint_ms, how much running time the
        last checkpoint preserved whose bytes were verified (0: none); restore_failed, a later attempt could not use it.
    """

    attempt: str
    payee: UUID
    rate: Qu
    limit_ms: int
    end: AttemptEnd
    fault: Fault
    running_at: dt.datetime | None
    until: dt.datetime | None
    agent_ms: int | None = None
    cancel_requested_at: dt.datetime | None = None
    checkpoint_ms: int = 0
    restore_failed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What one attempt (or member of a cluster) earns: gross units, before the fee, and the time that it was metered for."""

    line: str
    payee: UUID
    gross: Qu
    metered_ms: int


def metered_ms(use: Use) -> int:
    """How long the attempt ran, in milliseconds, by the stricter of two clocks.

    min(database time from `running` to its end, the agent's monotonic time), at most the granted limit, nothing after the
    consumer asked for its cancellation. Fetching inputs and queueing come before `running` and are free.
    """
    if use.running_at is None or use.until is None:
        return 0
    until = use.until if use.cancel_requested_at is None else min(use.until, use.cancel_requested_at)
    ran = max(0, (until - use.running_at) // dt.timedelta(milliseconds=1))
    if use.agent_ms is not None:
        ran = min(ran, max(0, use.agent_ms))
    return min(ran, max(0, use.limit_ms))


def paid_ms(use: Use, *, full_refund: bool) -> int:
    """How much of the metered time is paid for.

    All of it where the attempt succeeded, was cancelled, failed by the consumer's own fault, or still runs; up to its last
    verified checkpoint where it was lost or failed by another's fault, and nothing if that checkpoint could not be restored
    or the policy is full refund.
    """
    ran = metered_ms(use)
    theirs = use.end is AttemptEnd.LOST or (use.end is AttemptEnd.FAILED and use.fault in (Fault.PROVIDER, Fault.PLATFORM))
    if not theirs:
        return ran
    if full_refund or use.restore_failed:
        return 0
    return min(ran, max(0, use.checkpoint_ms))


def lines(uses: Sequence[Use], funded: Qu, *, outcome: Outcome | None = None, full_refund: bool = False) -> tuple[Line, ...]:
    """The lines of a job: what each attempt earns, in the order of the attempts, within what was funded.

    Args: uses, all attempts, oldest first; funded, what the escrow holds; outcome, the job's end (None while it lives: live
        earnings are this very function); full_refund, the deployment's policy: nothing is paid for a job that FAILED.
    Returns: one line per attempt that ran; they sum to at most `funded`.
    """
    left, found = funded, []
    for use in uses:
        if use.running_at is None:
            continue
        counted = 0 if full_refund and outcome is Outcome.FAILED else paid_ms(use, full_refund=full_refund)
        gross = charge(use.rate, counted, left)
        left = Qu(left - gross)
        found.append(Line(use.attempt, use.payee, gross, metered_ms(use)))
    return tuple(found)


def apportion(total: Qu, weights: Sequence[int]) -> tuple[Qu, ...]:
    """Split `total` by weight with the largest remainder, so that the parts sum to it (a cluster's members).

    Ties go to the earlier one. Raises: ValueError for a negative weight, or weights that sum to 0 with money to split.
    """
    if total < 0 or any(weight < 0 for weight in weights):
        raise ValueError("neither the total nor a weight is negative")
    whole = sum(weights)
    if whole == 0:
        if total:
            raise ValueError("there is money and nobody to take it")
        return tuple(Qu(0) for _ in weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return tuple(Qu(part) for part in parts)


def ruled_shares(to_payee: Qu, gross: Sequence[Qu]) -> tuple[Qu, ...]:
    """What an arbiter's `to_payee` leaves of each line, in the order of the lines' names; sums to min(to_payee, sum(gross)).

    The same differences of running shares that the database computes (`share_of`): no line exceeds its gross.
    """
    whole = sum(gross)
    total = min(to_payee, whole)
    if total < 0:
        raise ValueError("a ruling is never negative")
    shares, before = [], 0
    for part in gross:
        shares.append(Qu(total * (before + part) // whole - total * before // whole if whole else 0))
        before += part
    return tuple(shares)


def average_hourly_rate(finished: Iterable[tuple[int, int]]) -> Qu:
    """Earnings ÷ hours over all finished jobs, rounded down; 0 where there are none.

    Args: finished, pairs of (earned units, metered milliseconds).
    """
    earned = ran = 0
    for amount, ms in finished:
        earned, ran = earned + amount, ran + ms
    return Qu(earned * MS_PER_HOUR // ran if ran else 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Escrow:
    """One escrow as stored; payer is the user. For a job its id is the job's."""

    id: UUID
    asset: Asset
    payer: UUID
    state: EscrowState
    funded: Qu
    paid: Qu
    refunded: Qu
    created_at: dt.datetime
    disputed_at: dt.datetime | None
    settled_at: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Earning:
    """One line's money; to_payee is None until it is final, and includes the fee (taken on that part alone)."""

    id: UUID
    escrow_id: UUID
    line: str
    payee: UUID
    asset: Asset
    gross: Qu
    fee_bps: int
    fee: Qu
    state: EarningState
    to_payee: Qu | None
    matures_at: dt.datetime
    created_at: dt.datetime

    @property
    def net(self) -> Qu:
        """What reached the payee's wallet; 0 while it is open."""
        got = self.to_payee or Qu(0)
        return Qu(got - fee(got, self.fee_bps))


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """What waits for an arbiter: the settlement as the job's end asked for it."""

    outcome: Outcome
    fee_bps: int
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EarningsSummary:
    """A provider's money in one asset, net of the fee; days, weeks and months begin in UTC.

    total, today, week and month count what was paid out; pending waits for its window or an arbiter; average_per_hour is
    over all finished jobs, what was earned and is still pending included.
    """

    asset: Asset
    total: Qu
    today: Qu
    week: Qu
    month: Qu
    pending: Qu
    jobs: int
    metered_ms: int
    average_per_hour: Qu
