"""What an owner reads of a job: its timeline and its receipt. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from qubix.escrow.model import AttemptEnd, Earning, Escrow, Use, is_open, metered_ms
from qubix.jobs.model import Attempt, AttemptState, Fault, Job, Receipt, ReceiptAttempt, TimelineEntry
from qubix.jobs.payment import Request
from qubix.kernel.money import Qu, charge, written

_ENDS = {
    AttemptState.SUCCEEDED: "succeeded",
    AttemptState.FAILED: "failed",
    AttemptState.CANCELLED: "cancelled",
    AttemptState.LOST: "lost",
}


def timeline(
    job: Job, attempts: Sequence[Attempt], checkpoints: Sequence[tuple[int, int, dt.datetime]], asked: Request | None = None
) -> list[TimelineEntry]:
    """What happened, in order of time. Args: checkpoints, (attempt's number, its own number, stored at); asked, the payment it waited for."""
    held = f"held {written(job.ceiling)}"
    entries = [TimelineEntry(job.created_at, "created", None, held if asked is None else f"waits for a payment of {written(asked.amount)}")]
    if asked is not None and asked.paid_at is not None:
        entries.append(TimelineEntry(asked.paid_at, "funded", None, held))
    for attempt in attempts:
        resumed = "" if attempt.resumed_from is None else f", resuming from checkpoint {attempt.resumed_from}"
        entries.append(
            TimelineEntry(
                attempt.created_at, "assigned", attempt.number, f"to {attempt.node_name} at {written(attempt.rate)} an hour{resumed}"
            )
        )
        if attempt.accepted_at is not None:
            entries.append(TimelineEntry(attempt.accepted_at, "accepted", attempt.number, attempt.node_name))
        if attempt.running_at is not None:
            entries.append(TimelineEntry(attempt.running_at, "running", attempt.number, attempt.node_name))
        if attempt.ended_at is not None:
            detail = ": ".join(part for part in (attempt.reason, attempt.reason_detail) if part)
            entries.append(TimelineEntry(attempt.ended_at, _ENDS[attempt.state], attempt.number, detail))
    entries += [TimelineEntry(at, "checkpoint", number, f"checkpoint {n} stored") for number, n, at in checkpoints]
    if job.cancel_requested_at is not None:
        entries.append(TimelineEntry(job.cancel_requested_at, "cancel requested", None, ""))
    if job.ended_at is not None:
        entries.append(TimelineEntry(job.ended_at, job.state.value.lower(), None, job.reason_detail or job.reason or ""))
    return sorted(entries, key=lambda entry: entry.at)


def receipt(job: Job, attempts: Sequence[Attempt], escrow: Escrow, earnings: Sequence[Earning], *, now: dt.datetime) -> Receipt:
    """What was held, charged and refunded. While the job lives, what its attempts have cost up to `now`."""
    final = not is_open(escrow.state)
    lines: list[ReceiptAttempt] = []
    spent = 0
    for attempt in attempts:
        ran = attempt.metered_ms if attempt.metered_ms is not None else _so_far(job, attempt, now)
        cost = attempt.charge if attempt.charge is not None else charge(attempt.rate, ran, Qu(max(0, escrow.funded - spent)))
        spent += cost
        lines.append(
            ReceiptAttempt(
                number=attempt.number,
                node=attempt.node_name,
                node_id=attempt.node_id,
                status=attempt.state,
                resumed_from=attempt.resumed_from,
                metered_ms=ran,
                rate=attempt.rate,
                charge=cost,
                fault=attempt.fault,
                reason=attempt.reason,
            )
        )
    charged = escrow.paid if final else Qu(spent)
    returned = Qu(sum(earning.gross - (earning.to_payee or 0) for earning in earnings if earning.to_payee is not None))
    return Receipt(
        job_id=job.id,
        final=final,
        held=escrow.funded,
        charged=Qu(charged - returned) if final else charged,
        refunded=Qu(escrow.refunded + returned) if final else None,
        fee=Qu(sum(earning.fee for earning in earnings)),
        escrow_state=escrow.state.value,
        attempts=tuple(lines),
    )


def _so_far(job: Job, attempt: Attempt, now: dt.datetime) -> int:
    """Live metering: the very function that settles."""
    until = attempt.reported_at or attempt.ended_at or now
    return metered_ms(
        Use(
            attempt=str(attempt.id),
            payee=attempt.provider_id,
            rate=attempt.rate,
            limit_ms=attempt.limit_ms,
            end=AttemptEnd(attempt.state.value) if attempt.state.final else AttemptEnd.ALIVE,
            fault=attempt.fault or Fault.NONE,
            running_at=attempt.running_at,
            until=until,
            agent_ms=attempt.agent_ms,
            cancel_requested_at=job.cancel_requested_at,
        )
    )
