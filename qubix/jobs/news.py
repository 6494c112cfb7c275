"""The events of jobs, as told to clients."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qubix.jobs.model import JobState
from qubix.kernel.events import Event, EventType


def status_changed(job_id: UUID, state: JobState, *, provider_id: UUID | None = None, **members: Any) -> Event:
    """A job's status, or why it waits, has changed. Members: reason, message, attempt, node, … of this change."""
    topics = (f"job:{job_id}",) if provider_id is None else (f"job:{job_id}", f"provider:{provider_id}")
    return Event(EventType.JOB_STATUS_CHANGED, topics, job_id, {"job_id": str(job_id), "state": state.value, **members})


def ended(job_id: UUID, state: JobState, *, provider_id: UUID | None = None, **members: Any) -> Event:
    """A job has ended, whichever way: told exactly once, by its key."""
    topics = (f"job:{job_id}",) if provider_id is None else (f"job:{job_id}", f"provider:{provider_id}")
    return Event(
        EventType.JOB_COMPLETED, topics, job_id, {"job_id": str(job_id), "state": state.value, **members}, key=f"job/{job_id}/ended"
    )
