"""What is on its way to a deposit address, as far as the chain has shown it: for people and jobs that wait for it. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from qubix.kernel.money import Qu
from qubix.treasury.sending import CONFIRMATIONS

HELD_UP_S: Final = 60.0
"""A payment that is past its ticks and lacks its second proof for so long is called delayed."""
ARRIVALS_MAX: Final = 200
"""Payments of one address that are looked at, the largest first: dust cannot hide what was asked for."""


class ArrivalState(enum.StrEnum):
    """Where a payment stands; what is SEEN or WAITING is in no wallet yet."""

    SEEN = "SEEN"
    WAITING = "WAITING"
    CREDITED = "CREDITED"
    DOUBTFUL = "DOUBTFUL"
    GONE = "GONE"


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """A payment to a deposit address. Args: place, within its transaction; confirmations, as proved (never falling)."""

    tx_id: str
    place: int
    address: str
    amount: Qu
    tick: int
    payer: str
    memo: bytes
    state: ArrivalState
    confirmations: int
    seen_at: dt.datetime
    changed_at: dt.datetime

    @property
    def proved(self) -> int:
        """Confirmations to show: all of them once it is in the wallet."""
        return CONFIRMATIONS if self.state is ArrivalState.CREDITED else min(self.confirmations, CONFIRMATIONS)


class Arrivals(Protocol):
    """Where payments are read (qubix.treasury.arrivals_store.ArrivalsStore)."""

    async def since(self, since: Mapping[str, dt.datetime]) -> list[Arrival]: ...
    async def of(self, address: str, tx_ids: Sequence[str], memo: bytes) -> list[Arrival]: ...


def awaited_tick(arrivals: Sequence[Arrival]) -> int | None:
    """The last tick whose payments are in no wallet yet; None where nothing is on its way."""
    return max((arrival.tick for arrival in arrivals if arrival.state in (ArrivalState.SEEN, ArrivalState.WAITING)), default=None)


def is_held_up(arrivals: Sequence[Arrival], now: dt.datetime) -> bool:
    """Whether one of them takes longer than it should, or waits for a person; nothing is lost by it."""
    return any(
        arrival.state is ArrivalState.DOUBTFUL
        or (arrival.state is ArrivalState.WAITING and (now - arrival.changed_at).total_seconds() > HELD_UP_S)
        for arrival in arrivals
    )
