"""What payments were for that a restored backup does not know: pure.

A plain payout names its hold in its memo, a send-many its payees and amounts, and a sweep goes from one of our addresses to the paying one.
What none of these explains was signed by somebody else, and a person looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.transaction import Transaction

_MEMO: Final = re.compile(rb"qubix:hold:([0-9a-f-]{36})")


@dataclass(frozen=True, slots=True)
class Lost:
    """A transaction from one of our addresses that no payment here is for.

    Args: from_hot and to_hot, whether that is our paying address; is_proved, whether it is proved that it has paid; doubt, what lacks of a proof.
    """

    tx_id: str
    source: str
    destination: str
    amount: int
    tick: int
    input_type: int
    payload: bytes
    from_hot: bool
    to_hot: bool
    is_proved: bool = False
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Owed:
    """An open withdrawal that nothing is known to have paid."""

    hold_id: UUID
    amount: int
    address: str


@dataclass(frozen=True, slots=True)
class Place:
    """One payee. Args: owed, the open withdrawal that this pays (None: no such one is here); named, the hold that a memo names."""

    address: str
    amount: int
    owed: UUID | None
    named: UUID | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """What a lost payment was for. Args: kind, sweep, payout or unknown; places, none for a sweep; reason, why it is unknown."""

    lost: Lost
    kind: str
    fee: int = 0
    places: tuple[Place, ...] = ()
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is known."""
        return self.kind != "unknown" and all(place.owed is not None for place in self.places)

    @property
    def is_bookable(self) -> bool:
        """Whether it is booked without a person's word: it is whole, and has paid."""
        return self.is_whole and self.lost.is_proved


def explain(found: Sequence[Lost], owed: Sequence[Owed]) -> list[Explained]:
    """What each was for, in their order; an open withdrawal explains one payment: of those that have paid first, and the oldest first."""
    left = list(owed)
    explained = {id(lost): _explained(lost, left) for lost in sorted(found, key=lambda one: not one.is_proved)}
    return [explained[id(lost)] for lost in found]


def _explained(lost: Lost, left: list[Owed]) -> Explained:
    if not lost.from_hot:
        return (
            Explained(lost, "sweep") if lost.to_hot else Explained(lost, "unknown", reason="it goes from a deposit address to a stranger")
        )
    if memo := _MEMO.fullmatch(lost.payload.rstrip(b"\0")):
        return Explained(lost, "payout", places=(_named(lost, UUID(memo[1].decode()), left),))
    transaction = Transaction(
        identity.decode(lost.source), identity.decode(lost.destination), lost.amount, lost.tick, lost.input_type, lost.payload
    )
    if not qutil.is_send_many(transaction):
        return Explained(lost, "unknown", reason="it has no memo of ours: nobody here signed it")
    try:
        many = qutil.parse_send_many(transaction)
    except InvalidTransaction as error:
        return Explained(lost, "unknown", reason=error.message)
    places = tuple(_matched(identity.encode(one.destination), one.amount, left) for one in many.payments)
    return Explained(lost, "payout", many.fee, places)


def _named(lost: Lost, named: UUID, left: list[Owed]) -> Place:
    match = next((one for one in left if one == Owed(named, lost.amount, lost.destination)), None)
    if match is not None:
        left.remove(match)
    return Place(lost.destination, lost.amount, match.hold_id if match else None, named)


def _matched(address: str, amount: int, left: list[Owed]) -> Place:
    match = next((one for one in left if (one.address, one.amount) == (address, amount)), None)
    if match is not None:
        left.remove(match)
    return Place(address, amount, match.hold_id if match else None)
