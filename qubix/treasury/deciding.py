"""Signed payments: sent until their tick, then decided by what every endpoint proves (rules S2 to S5).

Only the bytes that the signer stored are ever sent. A payment ends as PAID or DEAD by `sending.verdict` alone; one that is neither stays
UNKNOWN, its money stays held, and it is asked about again, for as long as nobody decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from qubix import observability
from qubix.chains.qubic.answers import Ambiguous, Refused
from qubix.chains.qubic.errors import RpcUnavailable
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Conflict
from qubix.kernel.failpoints import reach
from qubix.kernel.money import Asset
from qubix.ledger.model import Code
from qubix.postgres.leader import NotLeader
from qubix.treasury.books import Books, OpenBooks
from qubix.treasury.halting import stop_for_person
from qubix.treasury.model import chain_event
from qubix.treasury.observing import Looks, Observer
from qubix.treasury.sending import (
    Counters,
    Dead,
    Pending,
    Rules,
    Settled,
    Signed,
    Unknown,
    is_broadcast_due,
    net_of_refund,
    verdict,
)
from qubix.treasury.watch_store import ChainState, SignedPayment
from qubix.treasury.witnesses import Witnesses, written_down

PAYMENTS_MAX: Final = 100

log = observability.logger("treasury")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a payment is asked about, and how long until a person is told.

    Args: first_s, between the first two questions, doubled up to most_s; keep_s, how long a look counts (more than the two looks at a
        sole endpoint are apart); unknown_s, how long a payment may be undecided past its tick before it is called unknown.
    """

    first_s: float = 2.0
    most_s: float = 30.0
    keep_s: float = 180.0
    unknown_s: float = 60.0


@dataclass(slots=True)
class _Case:
    """One payment since this process began to ask. Args: since and due_at by the monotonic clock."""

    since: float
    due_at: float
    pause_s: float
    looks: Looks = field(default_factory=Looks)


class Payer:
    """Sends what is signed and decides what became of it. Args: rules, how much proof is enough."""

    def __init__(
        self, witnesses: Witnesses, books: OpenBooks, *, clock: Clock, rules: Rules | None = None, patience: Patience | None = None
    ) -> None:
        self._witnesses = witnesses
        self._books = books
        self._clock = clock
        self._rules = rules or Rules()
        self._patience = patience or Patience()
        self._observer = Observer(witnesses, clock=clock, keep_s=self._patience.keep_s)
        self._cases: dict[UUID, _Case] = {}

    async def step(self) -> int:
        """Send and decide what is due; one payment that fails does not stop the others. Returns how many ended."""
        async with self._books() as books:
            state = await books.rows.state()
            payments = await books.rows.payments(PAYMENTS_MAX)
        self._cases = {payment.id: self._cases[payment.id] for payment in payments if payment.id in self._cases}
        ended = 0
        for payment in payments:
            if state is None:
                break
            try:
                ended += await self._one(payment, state)
            except NotLeader:
                raise
            except RpcUnavailable as error:
                log.warning("a payment waits for the network", tx=payment.tx_id, tick=payment.tick, error=error.message)
            except Exception as error:
                log.error("a payment could not be decided; tried again", tx=payment.tx_id, error=f"{type(error).__name__}: {error}"[:500])
        return ended

    async def _one(self, payment: SignedPayment, state: ChainState) -> bool:
        if is_broadcast_due(payment.tick, state.head, payment.since_broadcast_s):
            await self._broadcast(payment)
            return False
        if state.processed < payment.tick + self._rules.confirmations:
            if state.processed >= payment.tick and not payment.shown:
                await self._show(payment)
            return False
        return await self._decide(payment, state)

    # -- sending --

    async def _broadcast(self, payment: SignedPayment) -> None:
        """Send the stored bytes once more. The count is written first: a crash then only makes the next sending later."""
        first = payment.broadcasts == 0
        async with self._books() as books:
            await books.rows.broadcast(payment.id, None)
            if first:
                self._tell_owners(books, payment, "sent")
        reach("treasury.before_broadcast")
        outcome = await self._witnesses.rpc.broadcast(payment.encoded)
        reach("treasury.broadcast")
        against = outcome.reason if isinstance(outcome, Refused | Ambiguous) else ""
        if first or against:
            _tell(payment, "sent" if not against else type(outcome).__name__.lower(), against, endpoint=outcome.endpoint)

    async def _show(self, payment: SignedPayment) -> None:
        """Keep what the archive shows, before it is final: its owner sees it coming."""
        found = await self._witnesses.rpc.transaction(payment.tx_id)
        if found is None or not found.is_genuine():
            return
        async with self._books() as books:
            await books.rows.shown(payment.id, written_down(found))
            self._tell_owners(books, payment, "archived")

    # -- deciding --

    async def _decide(self, payment: SignedPayment, state: ChainState) -> bool:
        now = self._clock.monotonic()
        case = self._cases.setdefault(payment.id, _Case(now, now, self._patience.first_s))
        if now < case.due_at:
            return False
        case.due_at, case.pause_s = now + case.pause_s, min(2 * case.pause_s, self._patience.most_s)
        signed = _signed(payment)
        seen = await self._observer.observe(signed, state, case.looks)
        match verdict(signed, net_of_refund(signed, seen, self._rules), self._rules):
            case Settled(proof=proof):
                await self._settle(payment, proof)
                return True
            case Dead(cause=cause, proof=proof):
                await self._bury(payment, f"{cause}: {proof}")
                return True
            case Unknown(reason=reason, halt=halt):
                if halt or now - case.since >= self._patience.unknown_s:
                    await self._leave_unknown(payment, reason, halt=halt)
            case Pending():
                pass
        return False

    # -- what follows --

    async def _settle(self, payment: SignedPayment, proof: str) -> None:
        """Book a paid payment: each hold, the fee, the end, each in a transaction of its own and each repeatable."""
        case = self._cases[payment.id]
        shown = next((one.found for one in reversed(case.looks.sightings) if one.found), None)
        if shown:
            async with self._books() as books:
                await books.rows.shown(payment.id, written_down(shown))
        for hold in payment.holds:
            async with self._books() as books:
                code = await books.acts.captured(hold.id, payment.tx_id, payment.tick, proof)
                if code is Code.DONE:
                    books.tell(chain_event(hold.user_id, "withdrawal", -hold.amount, hold.id, _said(payment, "paid")))
            _must(code, f"the capture of hold {hold.id}")
            reach("treasury.captured")
        if payment.fee:
            async with self._books() as books:
                code = await books.acts.cost(payment.tx_id, Asset.QUBIC, payment.fee, payment.source, payment.tick, proof)
            if code is Code.INSUFFICIENT:
                await self._leave_unknown(
                    payment, f"it has paid, but the house cannot pay its fee of {payment.fee}: send that to the house's address", halt=False
                )
                return
            _must(code, "the booking of the fee")
            reach("treasury.cost_booked")
        async with self._books() as books:
            code = Code(await books.rows.payment_ended(payment.id, paid=True, proof=proof))
            books.wake("payouts")
        _must(code, "the end of the payment")
        reach("treasury.paid")
        _tell(payment, "paid", proof)

    async def _bury(self, payment: SignedPayment, proof: str) -> None:
        async with self._books() as books:
            code = Code(await books.rows.payment_ended(payment.id, paid=False, proof=proof))
            if code is Code.DONE:
                self._tell_owners(books, payment, "dead")
            books.wake("payouts")
        _must(code, "the end of the payment")
        reach("treasury.dead")
        _tell(payment, "dead", proof)

    async def _leave_unknown(self, payment: SignedPayment, reason: str, *, halt: bool) -> None:
        """Tell a person, once for each reason; the money stays held."""
        if payment.state == "UNKNOWN" and payment.reason == reason:
            return
        async with self._books() as books:
            code = Code(await books.rows.payment_unknown(payment.id, reason))
            if payment.state != "UNKNOWN":
                self._tell_owners(books, payment, "unknown")
            if halt:
                await stop_for_person(books.rows, "S5", reason, payment=str(payment.id), tx_id=payment.tx_id, tick=payment.tick)
        _must(code, "the unknown payment")
        reach("treasury.unknown")
        _tell(payment, "unknown", reason)

    @staticmethod
    def _tell_owners(books: Books, payment: SignedPayment, state: str) -> None:
        for hold in payment.holds:
            books.tell(chain_event(hold.user_id, "withdrawal", 0, hold.id, _said(payment, state) | {"amount": hold.amount}))


def _signed(payment: SignedPayment) -> Signed:
    many = tuple((hold.address, hold.amount) for hold in payment.holds) if payment.input_type else ()
    return Signed(
        payment.tx_id,
        payment.source,
        payment.destination,
        payment.amount,
        payment.tick,
        Counters(payment.before_transfers, payment.before_amount),
        payment.input_type,
        payment.payload,
        many,
    )


def _said(payment: SignedPayment, state: str) -> dict[str, object]:
    confirmations = {"paid": 3, "archived": 1}.get(state, 0)
    return {"tx_id": payment.tx_id, "state": state, "confirmations": confirmations, "tick": payment.tick}


def _must(code: Code, what: str) -> None:
    if code not in (Code.DONE, Code.DONE_ALREADY):
        raise Conflict(f"{what} answered {code.name.lower()}")


def _tell(payment: SignedPayment, state: str, reason: str, **more: object) -> None:
    log.info(
        "chain transaction",
        tx=payment.tx_id,
        tick=payment.tick,
        kind=payment.kind,
        amount=payment.amount,
        address=payment.destination,
        state=state,
        reason=reason,
        **more,
    )
