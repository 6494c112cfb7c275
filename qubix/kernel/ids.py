"""Identifiers: time-ordered UUIDs, one static type per noun, and the ids of money transfers."""

from __future__ import annotations

import hashlib
import os
import time
from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
ProviderId = NewType("ProviderId", UUID)
NodeId = NewType("NodeId", UUID)
OfferId = NewType("OfferId", UUID)
QuoteId = NewType("QuoteId", UUID)
JobId = NewType("JobId", UUID)
AttemptId = NewType("AttemptId", UUID)
EscrowId = NewType("EscrowId", UUID)
EarningId = NewType("EarningId", UUID)
SessionId = NewType("SessionId", UUID)


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def transfer_id(subject: UUID, step: str) -> UUID:
    """The id of one money step: the first 16 bytes of sha256(`subject/step`).

    The database computes the same value inside its acts; this copy is for tests and for finding a transfer.
    """
    return UUID(bytes=hashlib.sha256(f"{subject}/{step}".encode()).digest()[:16])
