"""One transaction of the treasury process, as its steps see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from qubix.kernel.events import Event
from qubix.treasury.lost_store import LostStore
from qubix.treasury.model import chain_event
from qubix.treasury.store import TreasuryStore
from qubix.treasury.watch_store import Change, WatchStore


@dataclass(frozen=True, slots=True)
class Books:
    """Args: rows, what the process keeps; acts, which move money, one per transaction; lost, after a restore; tell, adds an
    event; wake, after the commit."""

    rows: WatchStore
    acts: TreasuryStore
    lost: LostStore
    tell: Callable[[Event], None]
    wake: Callable[[str], None]

    def tell_changes(self, changes: Sequence[Change]) -> None:
        """Tell each address's user what has become of a payment to it."""
        for change in changes:
            if change.user_id is not None:
                self.tell(_incoming_event(change, change.user_id))


OpenBooks = Callable[[], AbstractAsyncContextManager[Books]]
"""Begins a transaction that holds only while this process leads, and commits it at a clean exit."""


def _incoming_event(change: Change, user: UUID) -> Event:
    credited = change.amount if change.state == "CREDITED" else 0
    said = {
        "tx_id": change.tx_id,
        "place": change.place,
        "state": change.state.lower(),
        "confirmations": change.confirmations,
        "amount": change.amount,
        "tick": change.tick,
        "address": change.address,
    }
    return chain_event(user, "deposit", credited, user, said)
