"""What the clients of a sweep were told, by which the oracle judges: written down the moment that it was acknowledged."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class AcknowledgedJob:
    """A job that the platform said it has.

    Args: owner, the user; kind, of the sweep's jobs; last, how a client saw it last; progress, the highest that it saw.
    """

    id: str
    owner: str
    kind: str
    last: dict[str, Any] = field(default_factory=dict)
    progress: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class AcknowledgedWithdrawal:
    """A withdrawal that was granted, to an identity that is nobody else's."""

    user: str
    destination: str
    amount: int


class Record:
    """All of it; written by the clients' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.jobs: list[AcknowledgedJob] = []
        self.withdrawals: list[AcknowledgedWithdrawal] = []
        self.consumers: list[str] = []
        self.findings: list[str] = []

    def add(self, what: AcknowledgedJob | AcknowledgedWithdrawal) -> None:
        """Remember what was acknowledged just now."""
        with self._lock:
            if isinstance(what, AcknowledgedJob):
                self.jobs.append(what)
            else:
                self.withdrawals.append(what)

    def find(self, what: str) -> None:
        """Something that must not be."""
        with self._lock:
            self.findings.append(what)
