"""The chain as its endpoints show it, each for itself, and what they prove together (decision 0005).

A payment is credited when every witness proves it; what only one of them shows is kept and shown to a person. So one endpoint that errs or
lies can delay a credit, and can neither invent nor hide one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import ArchivedTransaction, Balance, LastProcessed, TickInfo, Transfers
from qubix.chains.qubic.errors import RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.rpc import QubicRpc
from qubix.treasury.receiving import (
    Credit,
    Doubt,
    Doubtful,
    Judgement,
    NotYet,
    Payment,
    SecondProof,
    after_skip,
    is_whole,
    judge,
    payments_in,
)
from qubix.treasury.sending import CONFIRMATIONS

WITNESSES: Final = 2
"""Endpoints that must agree, or all if fewer are configured."""
FRESH_TICKS: Final = 60
"""A sole archive's list of a tick that is newer than this is held against the tick's signed data; of an older one, if it is empty."""

_QUTIL: Final = identity.encode(qutil.ADDRESS)
A = TypeVar("A", TickInfo, LastProcessed)
Key = tuple[str, int]
"""A payment's transaction, and its place within it."""


@dataclass(frozen=True, slots=True)
class Read:
    """A tick of which every witness gave its list. Args: lists, by endpoint, of what may concern us (see `Witnesses.read`)."""

    tick: int
    lists: Mapping[str, tuple[ArchivedTransaction, ...]]

    def transactions(self) -> dict[str, ArchivedTransaction]:
        """What any witness showed, by id; of two that differ the one whose fields make the id, and then the one that says that money moved."""
        shown: dict[str, ArchivedTransaction] = {}
        for listed in self.lists.values():
            for one in listed:
                other = shown.setdefault(one.id, one)
                if one != other and (one.is_genuine(), bool(one.money_flew)) > (other.is_genuine(), bool(other.money_flew)):
                    shown[one.id] = one
        return shown

    def agreed(self) -> set[str]:
        """The ids that every witness showed."""
        return set.intersection(*({one.id for one in listed} for listed in self.lists.values()))


@dataclass(frozen=True, slots=True)
class Jump:
    """The network never had this tick. Args: cursor, the last one that it did not have."""

    cursor: int


Reading = Read | Jump | Doubt


@dataclass(frozen=True, slots=True)
class Gone:
    """By every account no money moved."""

    payment: Payment


Found = Judgement | Gone


@dataclass(frozen=True, slots=True)
class Evidence:
    """The payments of one tick to our addresses as one witness shows them, and what else it says about them."""

    payments: tuple[Payment, ...]
    second: SecondProof


class Witnesses:
    """Asks as many endpoints as a proof needs, each by a client pinned to it.

    Args: needed, how many, at most all; alone_fresh_ticks, see FRESH_TICKS.
    """

    def __init__(self, rpc: QubicRpc, *, needed: int = WITNESSES, alone_fresh_ticks: int = FRESH_TICKS) -> None:
        self.rpc = rpc
        self.needed = max(1, min(needed, len(rpc.endpoints)))
        self._fresh = alone_fresh_ticks
        self._said: dict[str, LastProcessed] = {}

    async def look(self) -> tuple[TickInfo, LastProcessed]:
        """The head, and how far the archives are that a proof needs: with two witnesses the second furthest of each.

        Neither is ever believed to one alone: a head too far ahead would keep payments from being sent.
        Raises: RpcUnavailable when too few answer.
        """
        pins = [self.rpc.pinned(base) for base in self.rpc.endpoints]
        heads, answers = await asyncio.gather(
            asyncio.gather(*(pin.tick_info() for pin in pins), return_exceptions=True),
            asyncio.gather(*(pin.last_processed() for pin in pins), return_exceptions=True),
        )
        self._said |= {base: one for base, one in zip(self.rpc.endpoints, answers, strict=True) if isinstance(one, LastProcessed)}
        head, processed = self._agreed(heads), self._agreed(answers)
        self.rpc.learn_head(head.tick)
        return head, processed

    def _agreed(self, answers: Sequence[A | BaseException]) -> A:
        """The furthest that as many say as a proof needs."""
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        troubles = [answer for answer in answers if isinstance(answer, BaseException)]
        if stranger := next((one for one in troubles if not isinstance(one, RpcUnavailable)), None):
            raise stranger
        if len(found) < self.needed:
            raise troubles[0]
        return sorted(found, key=lambda one: one.tick, reverse=True)[self.needed - 1]

    async def read(self, tick: int, processed: int, ours: Mapping[str, str]) -> Reading:
        """One tick's list by each witness, of which only what may concern us is kept: from ours, to ours, or a send-many.

        Raises: RpcUnavailable or TickNotYetProcessed when too few witnesses can tell.
        """
        lists: dict[str, tuple[ArchivedTransaction, ...]] = {}
        jumps: list[int] = []
        trouble: Exception = RpcUnavailable("no endpoint was asked")
        for base in self.rpc.endpoints:
            try:
                listed = await self._list(self.rpc.pinned(base), tick, processed)
            except TickSkipped as skipped:
                jump = after_skip(tick, skipped.next_tick, await self.rpc.pinned(base).tick_intervals())
                if isinstance(jump, Doubt):
                    return jump
                jumps.append(jump)
            except (RpcUnavailable, TickNotYetProcessed) as error:
                trouble = error
                continue
            else:
                if listed is None:
                    return Doubt(f"the list of tick {tick} is not what its signed data names")
                lists[base] = tuple(shown for shown in listed if _concerns(shown, ours))
            if len(lists) + len(jumps) == self.needed:
                break
        if len(lists) + len(jumps) < self.needed:
            raise trouble
        if lists and jumps:
            return Doubt(f"the endpoints disagree on whether tick {tick} was skipped")
        return Jump(min(jumps)) if jumps else Read(tick, lists)

    async def _list(self, pin: QubicRpc, tick: int, processed: int) -> tuple[ArchivedTransaction, ...] | None:
        """The tick's list; None if it is not whole. Two witnesses hold each other's lists up, a sole one is held against the tick's data."""
        listed = await pin.transactions_of_tick(tick)
        if self.needed == 1 and (not listed or tick > processed - self._fresh) and not is_whole(listed, await pin.tick_data(tick)):
            return None
        return listed

    async def evidence(self, read: Read, ours: Mapping[str, str]) -> dict[str, Evidence]:
        """What each witness shows of the tick's payments to us, with its event logs and, where these do not tell, its balances.

        Our own transactions are no payments to us: what became of them is decided where they are sent.
        """
        found = {}
        for base, listed in read.lists.items():
            payments = _to_us(listed, ours)
            found[base] = Evidence(payments, await self._second(base, payments, ours))
        return found

    @staticmethod
    def bare(read: Read, ours: Mapping[str, str]) -> dict[str, Evidence]:
        """The same without any second proof: nobody could be asked for one."""
        return {base: Evidence(_to_us(listed, ours), SecondProof(0, {}, {}, {})) for base, listed in read.lists.items()}

    async def _second(self, base: str, payments: Sequence[Payment], ours: Mapping[str, str]) -> SecondProof:
        pin = self.rpc.pinned(base)
        log_tick = self._said[base].log_tick if base in self._said else 0
        transfers: dict[str, Transfers] = {}
        for tx_id in dict.fromkeys(payment.tx_id for payment in payments):
            transfers[tx_id] = await pin.transfers(tx_id)
        balances: dict[str, Balance] = {}
        for payment in payments:
            unproved = payment.money_flew and not transfers[payment.tx_id].transfers
            # Money comes to the paying address in other ways too, so its counter proves no payment.
            if unproved and ours[payment.address] != "hot" and payment.address not in balances:
                balances[payment.address] = await pin.balance(payment.address, max_age_s=0)
        return SecondProof(log_tick, transfers, balances, {})


def findings(evidence: Mapping[str, Evidence], credited: Mapping[str, int]) -> tuple[Found, ...]:
    """What all witnesses prove together of one tick's payments: one finding for each that any of them shows.

    Args: credited, what was ever recorded as come in at each address, by ticks before this one.
    """
    judged = [_judged(one, credited) for one in evidence.values()]
    payments: dict[Key, Payment] = {}
    for one in evidence.values():
        for payment in one.payments:
            if payment.genuine or payment.key not in payments:
                payments[payment.key] = payment
    return tuple(_together(payment, [said.get(key) for said in judged]) for key, payment in payments.items())


def _judged(evidence: Evidence, credited: Mapping[str, int]) -> dict[Key, Found]:
    second = replace(evidence.second, credited=dict(credited))
    found: dict[Key, Found] = {one.payment.key: one for one in judge(evidence.payments, second)}
    for payment in evidence.payments:
        if payment.key not in found:  # not flown, and no event says otherwise, or given back: gone, once the log is complete
            known = second.transfers.get(payment.tx_id)
            final = known is not None and known.complete and second.log_tick >= payment.tick + CONFIRMATIONS
            found[payment.key] = Gone(payment) if final else NotYet(payment)
    return found


def _together(payment: Payment, said: Sequence[Found | None]) -> Found:
    """One finding of all witnesses'; None: this one does not show the payment."""
    known = [one for one in said if one is not None]
    for one in known:
        if isinstance(one, Doubtful):
            return Doubtful(payment, one.reason)
    if len(known) < len(said):
        return Doubtful(payment, "one endpoint shows the payment, another one does not")
    if all(isinstance(one, Gone) for one in known):
        return known[0]
    if any(isinstance(one, NotYet) for one in known):
        return NotYet(payment)
    if any(isinstance(one, Gone) for one in known):
        return Doubtful(payment, "one endpoint shows the money moving, another one says that it did not")
    proofs = dict.fromkeys(one.proof for one in known if isinstance(one, Credit))
    return Credit(payment, f"{' and '.join(proofs)}, {len(known)} of {len(known)} endpoints")


def _to_us(listed: Sequence[ArchivedTransaction], ours: Mapping[str, str]) -> tuple[Payment, ...]:
    return payments_in([shown for shown in listed if shown.source not in ours], ours)


def _concerns(shown: ArchivedTransaction, ours: Mapping[str, str]) -> bool:
    return shown.destination in ours or shown.source in ours or shown.destination == _QUTIL


def written_down(shown: ArchivedTransaction) -> dict[str, Any]:
    """The transaction in the archive's own shape, for the records: the network forgets it at the epoch's end (D5)."""
    return {
        "hash": shown.id,
        "amount": str(shown.amount),
        "source": shown.source,
        "destination": shown.destination,
        "tickNumber": shown.tick,
        "timestamp": str(shown.timestamp_ms),
        "inputType": shown.input_type,
        "inputSize": len(shown.payload),
        "inputData": base64.b64encode(shown.payload).decode(),
        "signature": base64.b64encode(shown.signature).decode(),
        "moneyFlew": shown.money_flew,
    }
