"""When to sign, when to send again, and what became of a payment: the sending rules S1 to S8, pure.

A transaction executes in exactly its target tick, or never, and nothing calls it back. So there is one question that must never be
answered wrongly: is it dead? A second one is signed only after that. Every proof, of life or death, needs as many endpoints as
`Rules.witnesses` says (fewer only if fewer are configured), so that no single endpoint that errs or lies pays twice or not at all.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from qubix.chains.qubic import identity, signature
from qubix.chains.qubic.answers import ArchivedTransaction, LastProcessed, QuTransfer, TickInfo, TickInterval
from qubix.kernel.errors import Invalid

LEAD: Final = 20
"""How many ticks ahead of the head a payment is aimed."""
LEAD_MIN, LEAD_MAX = 10, 300
BROADCAST_MARGIN: Final = 3
"""From so many ticks before its own, a transaction is not sent again: the tick's leader has published by then."""
BROADCAST_EVERY_S: Final = 2.5
CONFIRMATIONS: Final = 3
ADVANCE_S: Final = 60.0
APART_S: Final = 30.0

_EPOCH_WEEKDAY: Final = 2
_HELD_FROM: Final = dt.time(11, 50)
_FIRST_SIGHT: Final = dt.timedelta(hours=3)
"""So long after the weekly window opens, an archive that advances does so in the new epoch."""


class NotPayable(Invalid):
    """Money sent there is lost."""

    code = "not_payable"


def payee(address: str) -> bytes:
    """The public key to which a payout may go.

    Raises: InvalidIdentity for letters that are none; NotPayable for the null identity, a contract, or a key that nobody can hold.
    """
    public_key = identity.decode(address)
    if public_key == identity.NULL:
        raise NotPayable("money sent to the null identity is burned", next_step="give an identity of your own")
    if identity.is_contract(public_key):
        raise NotPayable("this is a contract's address: it would keep the money", next_step="give an identity of your own")
    if not signature.is_public_key(public_key):
        raise NotPayable("nobody can hold this identity's key", next_step="copy your identity again from the wallet")
    return public_key


@dataclass(frozen=True, slots=True)
class EpochWatch:
    """The epoch that the archive is in, and when it was first seen to advance in it (None: not known)."""

    epoch: int
    advanced_at: dt.datetime | None


def watch(before: EpochWatch | None, processed: LastProcessed, now: dt.datetime) -> EpochWatch:
    """What is known of the epoch after one more look at the archive. Kept over restarts, or found again three hours into the epoch."""
    advances = processed.tick > processed.interval_initial_tick
    if before is None or (processed.epoch == before.epoch and before.advanced_at is None):
        surely = advances and now - _window_before(now) >= _FIRST_SIGHT
        return EpochWatch(processed.epoch, now if surely else None)
    if processed.epoch > before.epoch and advances:
        return EpochWatch(processed.epoch, now)
    return before


def is_held_back(at: dt.datetime, seen: EpochWatch | None) -> bool:
    """Whether a tick at that time falls between Wednesday 11:50 UTC and the archive's first advance in the new epoch (S8)."""
    return seen is None or seen.advanced_at is None or seen.advanced_at < _window_before(at)


def is_advancing(advanced_at: dt.datetime, now: dt.datetime, seen: EpochWatch | None) -> bool:
    """Whether the archive is well: it advanced within the last minute, or the epoch is changing and it need not."""
    return (now - advanced_at).total_seconds() <= ADVANCE_S or is_held_back(now, seen)


def _window_before(at: dt.datetime) -> dt.datetime:
    day = at.astimezone(dt.UTC)
    days = (day.weekday() - _EPOCH_WEEKDAY) % 7
    opened = dt.datetime.combine(day.date() - dt.timedelta(days=days), _HELD_FROM, dt.UTC)
    return opened if opened <= day else opened - dt.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign for this tick now, and store the bytes before anything is sent."""

    tick: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Do not sign now."""

    reason: str


def plan(head: TickInfo, now: dt.datetime, seen: EpochWatch | None, *, weekly: bool = True, lead: int = LEAD) -> Sign | Hold:
    """The tick for a payment that is to be signed now (S1, S8).

    Args: weekly, whether the network changes its epoch on Wednesdays (mainnet does, the devnet does not); lead, LEAD_MIN to LEAD_MAX ticks.
    """
    if not LEAD_MIN <= lead <= LEAD_MAX:
        raise ValueError(f"a payment is aimed {LEAD_MIN} to {LEAD_MAX} ticks ahead")
    executes_at = now + dt.timedelta(seconds=lead * max(1, head.duration_s))
    if weekly and (is_held_back(now, seen) or is_held_back(executes_at, seen)):
        return Hold("the epoch changes on Wednesday at 12:00 UTC, and what is pending then is lost: payouts go on in the new one")
    return Sign(head.tick + lead)


def is_in_reach(tick: int, head: int) -> bool:
    """Whether a payment may still be signed for that tick."""
    return head + LEAD_MIN <= tick <= head + LEAD_MAX


def is_broadcast_due(tick: int, head: int, since_last_s: float | None) -> bool:
    """Whether the same bytes go out (again) now: until three ticks before theirs, every 2.5 s (S2)."""
    return head < tick - BROADCAST_MARGIN and (since_last_s is None or since_last_s >= BROADCAST_EVERY_S)


@dataclass(frozen=True, slots=True)
class Counters:
    """What an identity ever sent: how many transfers, and how much."""

    transfers: int
    amount: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A payment as it was stored when it was signed.

    Args: before, the wallet's counters then; payments, identities and amounts that a send-many is to pay, none for a direct payment.
    """

    tx_id: str
    source: str
    destination: str
    amount: int
    tick: int
    before: Counters
    input_type: int = 0
    payload: bytes = b""
    payments: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one archive said, once it had been asked how far it is.

    Args: processed, the last tick that this endpoint itself named just before; found, the transaction by its id (None: not there);
        listed, the tick's transactions, and hashes, the ids in its tick data (None: not answered); skipped, whether it says that the
        tick never was.
    """

    endpoint: str
    at: dt.datetime
    processed: int
    found: ArchivedTransaction | None = None
    listed: tuple[ArchivedTransaction, ...] | None = None
    hashes: frozenset[str] | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The wallet's counters by one endpoint, after all ticks up to valid_for_tick."""

    endpoint: str
    valid_for_tick: int
    counters: Counters


@dataclass(frozen=True, slots=True)
class Moved:
    """The QU transfers of the transaction by one endpoint whose event logs reach to log_tick; complete: none is missing."""

    endpoint: str
    log_tick: int
    transfers: tuple[QuTransfer, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen since the payment was signed.

    Args: head and processed, the furthest that was believed; endpoints, how many are configured. Of each sequence the later come last.
    """

    head: int
    processed: int
    intervals: tuple[TickInterval, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()
    moved: tuple[Moved, ...] = ()
    endpoints: int = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """How much proof is enough. Args: confirmations in ticks; apart_s between two looks at a sole endpoint; witnesses, endpoints."""

    confirmations: int = CONFIRMATIONS
    apart_s: float = APART_S
    witnesses: int = 2


class Cause(enum.StrEnum):
    """Why a payment is dead."""

    NEVER_EXECUTED = "never_executed"
    TICK_SKIPPED = "tick_skipped"
    NOT_FLOWN = "not_flown"


@dataclass(frozen=True, slots=True)
class Pending:
    """Too early to tell; never sign another one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Paid, for good, in that tick."""

    tick: int
    proof: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Not paid, and it never can be: a new one may be signed."""

    cause: Cause
    proof: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not proved either way: never sign another one. Asked again with more evidence; if it stays, a person decides.

    Args: halt, whether money moved that nothing explains, so that all payouts of the wallet stop.
    """

    reason: str
    halt: bool = False


Verdict = Pending | Settled | Dead | Unknown


def verdict(signed: Signed, seen: Observed, rules: Rules | None = None) -> Verdict:
    """What became of a payment (S3 to S5)."""
    rules = rules or Rules()
    tick = signed.tick
    final = tick + rules.confirmations
    if seen.head <= tick or seen.processed < final:
        return Pending(f"tick {tick} is final once the archive has tick {final}; it has {seen.processed}")
    sightings = [sighting for sighting in seen.sightings if sighting.processed >= final]
    if not sightings:
        return Unknown(f"no archive has been asked since it has tick {final}")
    if stranger := _stranger(signed, sightings):
        return Unknown(f"transaction {stranger} of this wallet is in tick {tick} too, and nobody here signed it", halt=True)
    case = _Case(signed, seen, rules, sightings, [out for out in seen.outgoing if out.valid_for_tick > tick])
    inside = any(tick in interval for interval in seen.intervals)
    if any(sighting.skipped for sighting in sightings):
        if inside or not all(sighting.skipped and not sighting.found for sighting in sightings):
            return Unknown(f"the archives disagree on whether tick {tick} was skipped")
        return case.absent(Cause.TICK_SKIPPED)
    if not inside:
        return Unknown(f"tick {tick} is in no interval that the archive has, and was not skipped")
    latest = {sighting.endpoint: sighting for sighting in sightings}.values()
    if not any(sighting.found for sighting in sightings):
        return case.absent(Cause.NEVER_EXECUTED)
    found = [sighting.found for sighting in latest if sighting.found]
    if len(found) < len(latest):
        return Unknown("one archive shows the transaction and another does not")
    return case.executed(found)


def gave_back(signed: Signed, seen: Observed, rules: Rules | None = None) -> frozenset[str]:
    """The endpoints whose complete event log, from after a send-many is final, shows that the contract took its money and gave it back whole."""
    final = signed.tick + (rules or Rules()).confirmations
    both = {QuTransfer(signed.source, signed.destination, signed.amount), QuTransfer(signed.destination, signed.source, signed.amount)}
    logs = [moved for moved in seen.moved if moved.log_tick >= final and moved.complete]
    refunded = (moved.endpoint for moved in logs if len(moved.transfers) == len(both) and set(moved.transfers) == both)
    return frozenset(refunded) if signed.payments else frozenset()


def net_of_refund(signed: Signed, seen: Observed, rules: Rules | None = None) -> Observed:
    """What was seen, without a send-many that the contract took and gave back whole: that raises both of the wallet's counters and moves nothing.

    Taken so of an endpoint that `gave_back` names.
    """
    both = {QuTransfer(signed.source, signed.destination, signed.amount), QuTransfer(signed.destination, signed.source, signed.amount)}
    raised = Counters(signed.before.transfers + 1, signed.before.amount + signed.amount)
    refunded = gave_back(signed, seen, rules)
    if not refunded:
        return seen
    return replace(
        seen,
        outgoing=tuple(
            replace(out, counters=signed.before) if out.endpoint in refunded and out.counters == raised else out for out in seen.outgoing
        ),
        moved=tuple(
            replace(moved, transfers=()) if moved.endpoint in refunded and both.issuperset(moved.transfers) else moved
            for moved in seen.moved
        ),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """The evidence that counts. Args: outgoing, the wallet's counters from after the tick."""

    signed: Signed
    seen: Observed
    rules: Rules
    sightings: Sequence[Sighting]
    outgoing: Sequence[Outgoing]

    def executed(self, found: Sequence[ArchivedTransaction]) -> Verdict:
        signed = self.signed
        if not all(_is_same(signed, shown) for shown in found):
            return Unknown("an archive shows another transaction under this id")
        if any(shown.money_flew is None for shown in found):
            return Unknown("an archive does not say whether the money moved")
        flown = any(shown.money_flew for shown in found)
        rose = self._counters_are(Counters(signed.before.transfers + 1, signed.before.amount + signed.amount))
        same = self._counters_are(signed.before)
        if not (rose or same) and self.outgoing:
            return Unknown("the wallet's counters moved by something else than this payment", halt=True)
        if not self._is_witnessed([out.endpoint for out in self.outgoing]):
            return Unknown("too few endpoints have shown the wallet's counters after the tick")
        if flown and rose:
            if missing := self._unpaid():
                return Unknown(missing)
            return Settled(signed.tick, f"archived in tick {signed.tick}; outgoing counters rose by 1 transfer and {signed.amount}")
        if not flown and same:
            return self._not_flown()
        return Unknown("the archive says that the money moved and the wallet's counters say that it did not, or the other way round")

    def _not_flown(self) -> Verdict:
        late = [moved for moved in self.seen.moved if moved.log_tick >= self.signed.tick + self.rules.confirmations and moved.complete]
        if any(moved.transfers for moved in self.seen.moved):
            return Unknown("the archive says that no money moved, the event log says that some did")
        if not self._is_witnessed([moved.endpoint for moved in late]):
            return Unknown("too few endpoints have shown that no money moved")
        return Dead(Cause.NOT_FLOWN, f"archived in tick {self.signed.tick} without effect; counters unchanged and no event after it")

    def _unpaid(self) -> str:
        """Why a send-many that was taken is not known to have paid; empty if it has. A contract may take the money and give it back."""
        if not self.signed.payments:
            return ""
        due = sorted(self.signed.payments)
        for moved in self.seen.moved:
            paid = sorted((shown.destination, shown.amount) for shown in moved.transfers if shown.source == self.signed.destination)
            if paid == due:
                return ""
        return "no event log shows that the contract has paid exactly what it was told to"

    def absent(self, cause: Cause) -> Verdict:
        """Nothing shows the transaction: dead if that was seen often enough, by enough endpoints, and no money moved (S4c, S4d, S5)."""
        tx_id = self.signed.tx_id
        sightings = self.sightings
        if cause is Cause.NEVER_EXECUTED:
            if any(tx_id in (sighting.hashes or ()) or tx_id in _ids(sighting.listed) for sighting in sightings):
                return Unknown("the tick contains the transaction, and the archive does not find it")
            sightings = [sighting for sighting in sightings if sighting.listed is not None]
        if any(moved.transfers for moved in self.seen.moved):
            return Unknown("the archive does not find the transaction, and the event log shows that it moved money", halt=True)
        if self.outgoing and not self._counters_are(self.signed.before):
            return Unknown("the payment is not in its tick, and yet money left the wallet since it was signed", halt=True)
        if not self._is_witnessed([out.endpoint for out in self.outgoing]):
            return Unknown("too few endpoints have shown the wallet's counters after the tick")
        if not self._is_absent_enough(sightings):
            return Unknown(f"not there, but seen so too rarely: by two endpoints, or twice {self.rules.apart_s:.0f} s apart by a sole one")
        return Dead(cause, f"not in tick {self.signed.tick} by {len(sightings)} looks at the archive; outgoing counters unchanged")

    def _is_absent_enough(self, sightings: Sequence[Sighting]) -> bool:
        if not sightings or not self._is_witnessed([sighting.endpoint for sighting in sightings]):
            return False
        times = [sighting.at for sighting in sightings]
        apart = (max(times) - min(times)).total_seconds() >= self.rules.apart_s
        return apart or len({sighting.endpoint for sighting in sightings}) > 1

    def _counters_are(self, counters: Counters) -> bool:
        return bool(self.outgoing) and all(out.counters == counters for out in self.outgoing)

    def _is_witnessed(self, endpoints: Sequence[str]) -> bool:
        return len(set(endpoints)) >= max(1, min(self.rules.witnesses, self.seen.endpoints))


def _is_same(signed: Signed, shown: ArchivedTransaction) -> bool:
    told = (shown.id, shown.source, shown.destination, shown.amount, shown.tick, shown.input_type, shown.payload)
    ours = (signed.tx_id, signed.source, signed.destination, signed.amount, signed.tick, signed.input_type, signed.payload)
    return told == ours and shown.is_genuine()


def _stranger(signed: Signed, sightings: Sequence[Sighting]) -> str | None:
    """Another transaction of the wallet in the tick: a twin under a second signature, or somebody who has the key."""
    for sighting in sightings:
        for shown in sighting.listed or ():
            if shown.source == signed.source and shown.id != signed.tx_id:
                return shown.id
    return None


def _ids(listed: tuple[ArchivedTransaction, ...] | None) -> set[str]:
    return {shown.id for shown in listed or ()}
