"""What happened, as told to clients: written in the transaction that caused it, delivered in order."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any
from uuid import UUID


class EventType(enum.StrEnum):
    """The closed list of server events."""

    PROVIDER_REGISTERED = "PROVIDER_REGISTERED"
    PROVIDER_STATUS_CHANGED = "PROVIDER_STATUS_CHANGED"
    GPU_METRICS_UPDATE = "GPU_METRICS_UPDATE"
    MARKETPLACE_UPDATE = "MARKETPLACE_UPDATE"
    JOB_STATUS_CHANGED = "JOB_STATUS_CHANGED"
    JOB_PROGRESS = "JOB_PROGRESS"
    JOB_LOG = "JOB_LOG"
    JOB_COMPLETED = "JOB_COMPLETED"
    ESCROW_UPDATE = "ESCROW_UPDATE"
    EARNINGS_UPDATE = "EARNINGS_UPDATE"
    WALLET_UPDATE = "WALLET_UPDATE"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One durable event.

    Args: type; topics, the full topic names that carry it (`marketplace`, `provider:<id>`, `job:<id>`,
        `escrow:<id>`, `earnings:<user id>`, `wallet:<user id>`); subject_id, the row that it is about;
        payload, JSON members for the client, never a secret; key, where given, makes the event unique:
        a second event with the same key is dropped (an end is told once).
    """

    type: EventType
    topics: tuple[str, ...]
    subject_id: UUID
    payload: Mapping[str, Any]
    key: str | None = None
