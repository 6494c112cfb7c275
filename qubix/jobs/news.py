"""The events of jobs, as told to clients."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qubix.jobs.model import JobState
from qubix.jobs.payment import Request, Shown
from qubix.kernel.events import Event, EventType
from qubix.kernel.money import Asset
from qubix.treasury.sending import CONFIRMATIONS


def status_changed(job_id: UUID, state: JobState, *, provider_id: UUID | None = None, **members: Any) -> Event:
    """A job's status, or why it waits, has changed. Members: reason, message, attempt, node, … of this change."""
    topics = (f"job:{job_id}",) if provider_id is None else (f"job:{job_id}", f"provider:{provider_id}")
    return Event(EventType.JOB_STATUS_CHANGED, topics, job_id, {"job_id": str(job_id), "state": state.value, **members})


def payment_came(request: Request, shown: Shown) -> Event:
    """What has come for a job that waits for its payment, and how far it is proved."""
    payload = {
        "state": "PENDING",
        "funded": 0,
        "paid": 0,
        "refunded": 0,
        "asset": Asset.QUBIC.name,
        "job_id": str(request.job_id),
        "received": shown.received,
        "missing": shown.missing,
        "confirmations": shown.confirmations,
        "confirmations_needed": CONFIRMATIONS,
        "tx_ids": list(shown.tx_ids),
    }
    return Event(EventType.ESCROW_UPDATE, (f"escrow:{request.job_id}", f"job:{request.job_id}"), request.job_id, payload)


def ended(job_id: UUID, state: JobState, *, provider_id: UUID | None = None, **members: Any) -> Event:
    """A job has ended, whichever way: told exactly once, by its key."""
    topics = (f"job:{job_id}",) if provider_id is None else (f"job:{job_id}", f"provider:{provider_id}")
    return Event(
        EventType.JOB_COMPLETED, topics, job_id, {"job_id": str(job_id), "state": state.value, **members}, key=f"job/{job_id}/ended"
    )
