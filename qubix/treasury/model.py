"""Chain money as its owner sees it: what is on its way, how far it is, and how long it still takes. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from qubix.kernel.errors import Unavailable
from qubix.kernel.events import Event, EventType
from qubix.kernel.ids import transfer_id
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import EntryStatus
from qubix.treasury.receiving import Shown, expected_wait_s, proved
from qubix.treasury.sending import ADVANCE_S, CONFIRMATIONS, LEAD, NotPayable

INCOMING_MAX: Final = 100
"""Payments on their way that one answer shows."""


class OurOwnAddress(NotPayable):
    """A payout may not go to an address of this platform."""

    code = "our_own_address"


class NotReconciled(Unavailable):
    """The platform was restored from a backup, and what the chain paid since is not booked yet: a wallet may have less than it says."""

    code = "not_reconciled"


class ChainState(enum.StrEnum):
    """How far a movement between the chain and a wallet is. The first two and DOUBTFUL are those of money that comes in."""

    SEEN = "seen"
    WAITING = "waiting"
    DOUBTFUL = "doubtful"
    QUEUED = "queued"
    APPROVAL = "approval"
    HALTED = "halted"
    SIGNED = "signed"
    UNKNOWN = "unknown"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def status(self) -> EntryStatus:
        """What the history calls it."""
        return _STATUS.get(self, EntryStatus.PENDING)


_STATUS: Final = {
    ChainState.DOUBTFUL: EntryStatus.UNKNOWN,
    ChainState.UNKNOWN: EntryStatus.UNKNOWN,
    ChainState.DONE: EntryStatus.COMPLETED,
    ChainState.CANCELLED: EntryStatus.FAILED,
}


@dataclasses.dataclass(frozen=True, slots=True)
class ChainFacts:
    """What the chain has to do with an entry of the history.

    Args: subject_id, the entry's; address, of a deposit ours, of a withdrawal where it goes; counterparty, the other end; tx_id and tick,
        None while nothing is signed; confirmations, proved ones, 0 to 3; reason, why it is as it is, for people; in_flight, whether a
        signed payment may still execute, so that the withdrawal cannot be called off.
    """

    subject_id: UUID
    state: ChainState
    address: str
    counterparty: str | None
    tx_id: str | None
    tick: int | None
    confirmations: int
    reason: str
    in_flight: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Incoming:
    """A payment to a user's deposit address that is in no wallet yet."""

    tx_id: str
    place: int
    address: str
    amount: Qu
    tick: int
    payer: str
    state: ChainState
    confirmations: int
    reason: str
    seen_at: dt.datetime

    @property
    def subject_id(self) -> UUID:
        """The id of the chain row that it becomes."""
        return deposit_id(self.tx_id, self.place)

    @property
    def entry_id(self) -> UUID:
        """The id that it has in the history once it is credited."""
        return entry_of(self.subject_id)


def entry_of(deposit: UUID) -> UUID:
    """The id in the history of a deposit's chain row."""
    return transfer_id(deposit, "deposit")


def deposit_id(tx_id: str, place: int = 0, asset: Asset = Asset.QUBIC) -> UUID:
    """The id of a deposit's chain row; the database computes the same one inside its act."""
    return UUID(bytes=hashlib.sha256(f"deposit/{asset.value}/{tx_id}/{place}".encode()).digest()[:16])


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """How the chain stands, for saying how long something takes.

    Args: head and processed, the newest tick and the archive's last one; tick_s, seconds per tick; delayed, whether the archive does not
        advance, so that nothing can be said.
    """

    head: int
    processed: int
    tick_s: float
    delayed: bool

    def wait_s(self, tick: int | None) -> int | None:
        """About how many seconds until a payment of that tick is final; of one that is signed only now without a tick; None: not known."""
        if self.delayed:
            return None
        return expected_wait_s(self.head + LEAD if tick is None else tick, self.processed, self.tick_s)


UNWATCHED: Final = Outlook(0, 0, 1.0, delayed=True)
"""Nobody has looked at the chain yet."""


def outlook(head: int, processed: int, tick_s: float, advanced_at: dt.datetime | None, now: dt.datetime) -> Outlook:
    """How the chain stands. Delayed for its users whatever the reason, an epoch's change too."""
    advances = advanced_at is not None and (now - advanced_at).total_seconds() <= ADVANCE_S
    return Outlook(head, processed, tick_s, delayed=not advances)


def withdrawal_state(hold: str, payment: str | None, *, live: bool, halted: bool, waits_for_approval: bool = False) -> ChainState:
    """How far a withdrawal is.

    Args: hold and payment, their states in the database, of the payment the latest's, None for none; live, whether that one may still
        execute; halted, whether payouts are stopped for this user; waits_for_approval, whether it is past a ceiling and nobody has approved it.
    """
    if hold == "CAPTURED":
        return ChainState.DONE
    if hold == "VOIDED":
        return ChainState.CANCELLED
    if live:
        return ChainState.UNKNOWN if payment == "UNKNOWN" else ChainState.SIGNED
    if waits_for_approval:
        return ChainState.APPROVAL
    return ChainState.HALTED if halted else ChainState.QUEUED


def confirmations_of(state: ChainState, tick: int | None, processed: int, *, archived: bool) -> int:
    """The confirmations that are proved of a withdrawal's payment. Args: archived, whether an archive has shown it with its money moved."""
    if state is ChainState.DONE:
        return CONFIRMATIONS
    if tick is None or state not in (ChainState.SIGNED, ChainState.UNKNOWN):
        return 0
    return proved(Shown(processed, tick, found=archived, flown=archived, second_proof=False))


def said_of_withdrawal(state: ChainState, tick: int | None, verdict: str, *, died: bool) -> str:
    """Why a withdrawal is as it is, in a sentence for its owner.

    Args: verdict, what was last found out about its payment; died, whether an earlier payment is proved never to have executed.
    """
    again = "; an earlier payment is proved never to have executed" if died else ""
    match state:
        case ChainState.QUEUED:
            return "waits to be signed" + again
        case ChainState.APPROVAL:
            return "above what is paid without a second look: waits for the operator's approval" + again
        case ChainState.HALTED:
            return "payouts are stopped until our figures and the chain's agree; it will be signed then" + again
        case ChainState.SIGNED:
            return f"signed for tick {tick}: it executes there or never"
        case ChainState.UNKNOWN:
            return f"not proved yet whether it was paid, a person looks at it: {verdict}"
        case ChainState.CANCELLED:
            return "given back to the wallet"
    return f"paid in tick {tick}"


def chain_event(user: UUID, reason: str, change: int, subject: UUID, said: Mapping[str, object]) -> Event:
    """News of chain money for a wallet's owner.

    Args: subject, what it is about: a withdrawal's hold, or for a deposit the user; said, the chain's side of it.
    """
    payload = {"asset": Asset.QUBIC.name, "change": change, "reason": reason, "subject_id": str(subject)}
    return Event(EventType.WALLET_UPDATE, (f"wallet:{user}",), user, {**payload, **said})


def said_of(facts: ChainFacts | None) -> dict[str, object]:
    """The chain's side of a withdrawal; None: just asked for."""
    if facts is None:
        return {"tx_id": None, "state": ChainState.QUEUED, "confirmations": 0, "tick": None}
    return {"tx_id": facts.tx_id, "state": facts.state, "confirmations": facts.confirmations, "tick": facts.tick}
