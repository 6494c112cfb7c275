"""What the signer signs, and with which bytes: pure. When it signs, and what becomes of it, is sending.py's.

A payout pays the first holds in turn that are within the ceilings, or that a person approved, and that the paying wallet can pay now. A hold that
cannot go now never keeps others from going: the chain holds at least what all holds together ask for, so once deposits are swept each has
its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import Balance, TickInfo
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.qutil import PAYMENTS_MAX
from qubix.chains.qubic.transaction import AMOUNT_MAX, Transaction
from qubix.kernel.errors import Invalid, QubixError
from qubix.treasury import sending
from qubix.treasury.sending import Counters, Hold

FEE_MAX: Final = 1_000
"""A send-many's fee above this is not believed; payouts then go one by one, without a fee."""
WITNESSES: Final = 2
"""So many endpoints must agree on a wallet's counters before anything is signed on them, or all if there are fewer."""


class SignatureFault(QubixError):
    """What was signed is not what was meant: nothing is stored, and nothing sent."""

    code = "signature_fault"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An open hold for which nothing is signed, and what the ceilings are judged by.

    Args: user_day and wallet_day, what was signed for in the last day, for this user and for all; halted, by R1 or R2.
    """

    hold_id: UUID
    account_id: int
    amount: int
    address: str
    approved: bool = False
    halted: bool = False
    user_day: int = 0
    wallet_day: int = 0


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that is signed without a person, per payment, and per user and wallet within a day."""

    payment_max: int
    user_day_max: int
    wallet_day_max: int

    def let(self, candidates: Sequence[Candidate]) -> bool:
        """Whether these holds may go together: each that nobody approved must be within all ceilings, the others counted in."""
        wallet = sum(one.amount for one in candidates)
        users: dict[int, int] = {}
        for one in candidates:
            users[one.account_id] = users.get(one.account_id, 0) + one.amount
        return all(
            one.approved
            or (
                one.amount <= self.payment_max
                and one.user_day + users[one.account_id] <= self.user_day_max
                and one.wallet_day + wallet <= self.wallet_day_max
            )
            for one in candidates
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The holds of one payment, in the order of their places. Args: fee, 0 for a plain transfer of a single hold."""

    holds: tuple[Candidate, ...]
    fee: int = 0

    @property
    def amount(self) -> int:
        """What leaves the wallet."""
        return sum(one.amount for one in self.holds) + self.fee


def unpayable(one: Candidate) -> str | None:
    """Why no transaction can, or must, ever pay this hold: a person has to look at it. None: it can be paid."""
    if not 0 < one.amount < AMOUNT_MAX:
        return "no transaction carries such an amount"
    try:
        sending.payee(one.address)
    except Invalid as error:
        return error.message
    return None


def choose(candidates: Sequence[Candidate], ceilings: Ceilings, *, balance: int, fee: int | None, house: int) -> Choice | None:
    """Which holds go into the next payment; None: none can go now.

    Args: candidates, payable ones, in the order in which they are to go; balance, what the paying wallet has on chain; fee, of a send-many (None: not known);
        house, what the platform has for fees: a send-many goes only when it can pay its own.
    """
    if fee is not None and 0 <= fee <= min(FEE_MAX, house):
        together = _fitting(candidates, ceilings, min(balance, AMOUNT_MAX) - fee, PAYMENTS_MAX)
        if len(together) > 1:
            return Choice(together, fee)
    alone = _fitting(candidates, ceilings, balance, 1)
    return Choice(alone) if alone else None


def _fitting(candidates: Sequence[Candidate], ceilings: Ceilings, balance: int, most: int) -> tuple[Candidate, ...]:
    taken: list[Candidate] = []
    for one in candidates:
        if one.halted or one.amount > balance or not ceilings.let([*taken, one]):
            continue
        taken.append(one)
        balance -= one.amount
        if len(taken) == most:
            break
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class Wallet:
    """What an address of ours has on chain, and its outgoing counters: all that it ever sent is settled and counted in them."""

    balance: int
    counters: Counters


def agreed(answers: Sequence[Balance], *, settled_tick: int, endpoints: int) -> Wallet | Hold:
    """The wallet as the endpoints show it, if they agree; the least of their balances.

    Args: answers, at most one per endpoint; settled_tick, of the wallet's last payment, whose effect an answer must contain.
    """
    late_enough = [answer for answer in answers if answer.valid_for_tick >= settled_tick]
    due = max(1, min(WITNESSES, endpoints))
    if len(late_enough) < due:
        return Hold(f"{len(late_enough)} of {due} endpoints show the wallet as it is since tick {settled_tick}")
    counters = {Counters(answer.outgoing_transfers, answer.outgoing_amount) for answer in late_enough}
    if len(counters) > 1:
        return Hold("the endpoints disagree on what the wallet has sent")
    return Wallet(min(answer.amount for answer in late_enough), counters.pop())


def agreed_head(answers: Sequence[TickInfo], *, endpoints: int) -> TickInfo | Hold:
    """The furthest head from which a payment is in reach for as many endpoints as must agree.

    A tick that a liar names could be days ahead, and until it has passed the wallet could pay nobody.
    Args: answers, at most one per endpoint.
    """
    due = max(1, min(WITNESSES, endpoints))
    heads = sorted(answers, key=lambda answer: answer.tick, reverse=True)
    for head in heads:
        if sum(sending.is_in_reach(head.tick + sending.LEAD, other.tick) for other in heads) >= due:
            return head
    return Hold(
        f"of {due} endpoints that must agree on the network's tick, these answered: {', '.join(str(one.tick) for one in heads) or 'none'}"
    )


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A payment to be stored. Args: encoded, the only bytes that will ever be sent for it."""

    transaction: Transaction
    encoded: bytes
    tx_id: str
    fee: int
    holds: tuple[UUID, ...]

    @property
    def source(self) -> str:
        return identity.encode(self.transaction.source)

    @property
    def destination(self) -> str:
        return identity.encode(self.transaction.destination)


def sign_choice(choice: Choice, source: str, subseed: bytes, tick: int) -> SignedPayment:
    """A payout, signed: a plain transfer for a single hold, QUTIL's send-many for several.

    The hold's id goes along as a memo, so that two equal payouts differ (S7); a send-many has no room for one.
    Raises: SignatureFault if the bytes, read again, are not exactly that.
    """
    payer = identity.decode(source)
    pairs = [(sending.payee(one.address), one.amount) for one in choice.holds]
    if choice.fee or len(pairs) > 1:
        unsigned = qutil.send_many(payer, pairs, tick=tick, fee=choice.fee)
    else:
        [(destination, amount)] = pairs
        unsigned = Transaction(payer, destination, amount, tick, payload=memo(choice.holds[0].hold_id))
    return _signed(unsigned, subseed, choice.fee, tuple(one.hold_id for one in choice.holds), pairs)


def sign_sweep(source: str, hot: str, amount: int, subseed: bytes, tick: int) -> SignedPayment:
    """Money of a deposit address to the paying one, signed. Raises: SignatureFault if the bytes, read again, are not exactly that."""
    destination = identity.decode(hot)
    return _signed(Transaction(identity.decode(source), destination, amount, tick), subseed, 0, (), [(destination, amount)])


def memo(hold_id: UUID) -> bytes:
    """What a plain payout carries."""
    return f"qubix:hold:{hold_id}".encode()


def _signed(unsigned: Transaction, subseed: bytes, fee: int, holds: tuple[UUID, ...], pairs: Sequence[tuple[bytes, int]]) -> SignedPayment:
    encoded = unsigned.signed_by(subseed).to_bytes()
    read = Transaction.from_bytes(encoded)
    if read.unsigned() != unsigned.unsigned() or not read.verify() or _pays(read) != (list(pairs), fee):
        raise SignatureFault(
            "a signed transaction does not read as what was to be signed", next_step="stop the signer; look at its machine"
        )
    return SignedPayment(read, encoded, read.id, fee, holds)


def _pays(read: Transaction) -> tuple[list[tuple[bytes, int]], int]:
    if not qutil.is_send_many(read):
        return [(read.destination, read.amount)], 0
    try:
        found = qutil.parse_send_many(read)
    except InvalidTransaction:
        return [], 0
    return [(payment.destination, payment.amount) for payment in found.payments], found.fee
