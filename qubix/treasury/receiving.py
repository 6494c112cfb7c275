"""What came in, and when it counts: the receiving rules D1 to D3, pure.

A payment counts when the archive, three ticks past it, shows it as flown, *and* something that does not come from the same bit agrees: the
event log of the tick, or the incoming counter of the address that nobody but its payers uses. A transaction that somebody names, or a
broadcast's answer, is no payment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import ArchivedTransaction, Balance, TickData, TickInterval, Transfers
from qubix.kernel.errors import Invalid
from qubix.treasury.sending import CONFIRMATIONS

_QUTIL: Final = identity.encode(qutil.ADDRESS)


@dataclass(frozen=True, slots=True)
class Scan:
    """Read this tick; it is final in the archive."""

    tick: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to read before the archive has this tick."""

    until_processed: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """What was said does not fit together: do not move the cursor, ask again, and show it if it stays."""

    reason: str


def next_scan(cursor: int, processed: int, confirmations: int = CONFIRMATIONS) -> Scan | Wait:
    """The tick to read after `cursor`, the last one that is done (D1)."""
    tick = cursor + 1
    return Scan(tick) if tick + confirmations <= processed else Wait(tick + confirmations)


def after_skip(tick: int, next_tick: int, intervals: Sequence[TickInterval]) -> int | Doubt:
    """The cursor after the archive said that `tick` was skipped and `next_tick` is the next one.

    Believed as far as its own intervals say so too: a jump too far would lose deposits.
    """
    following = [interval.first_tick for interval in intervals if interval.first_tick > tick]
    if any(tick in interval for interval in intervals):
        return Doubt(f"tick {tick} is called skipped, and the archive has it")
    if not following or min(following) < next_tick:
        return Doubt(f"after tick {tick} the archive has {min(following, default='nothing')}, and calls {next_tick} the next one")
    return next_tick - 1


def is_whole(transactions: Sequence[ArchivedTransaction], signed: TickData | None) -> bool:
    """Whether a tick's list is complete by its tick data; without any (an empty tick), whether it is empty."""
    return {shown.id for shown in transactions} == (signed.transaction_ids if signed else frozenset())


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that a transaction of the archive says is for one of our addresses.

    Args: place, 0 for a direct one, its place in the list of a send-many; payer, whose transaction it is; sender, whose money the event
        log shows moving: the payer's, or QUTIL's; memo, a direct payment's payload; twin, another transaction of the same tick with the
        same payer, payee, amount and payload; genuine, whether the id is that of the fields.
    """

    tx_id: str
    place: int
    address: str
    amount: int
    tick: int
    payer: str
    sender: str
    money_flew: bool | None
    genuine: bool = True
    memo: bytes = b""
    twin: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What makes it unique, however often it is read."""
        return self.tx_id, self.place


def payments_in(transactions: Sequence[ArchivedTransaction], ours: Collection[str]) -> tuple[Payment, ...]:
    """The payments to our addresses in one tick's transactions, each once, in their order. Zero amounts are none."""
    payments: dict[tuple[str, int], Payment] = {}
    bodies: dict[tuple[object, ...], str] = {}
    for shown in transactions:
        for payment in _payments_of(shown, ours):
            if payment.key in payments:
                continue
            body = (shown.source, shown.destination, shown.amount, shown.tick, shown.input_type, shown.payload)
            first = bodies.setdefault(body, shown.id)
            payments[payment.key] = payment if first == shown.id else replace(payment, twin=first)
    return tuple(payments.values())


def _payments_of(shown: ArchivedTransaction, ours: Collection[str]) -> list[Payment]:
    if shown.destination == _QUTIL and shown.input_type == qutil.SEND_TO_MANY:
        found = _listed(shown, ours)
    elif shown.destination in ours and shown.amount > 0:
        found = [(0, shown.destination, shown.amount)]
    else:
        return []
    if not found:
        return []
    sender, memo = (_QUTIL, b"") if shown.destination == _QUTIL else (shown.source, shown.payload)
    genuine = shown.is_genuine()
    return [
        Payment(shown.id, place, address, amount, shown.tick, shown.source, sender, shown.money_flew, genuine, memo)
        for place, address, amount in found
    ]


def _listed(shown: ArchivedTransaction, ours: Collection[str]) -> list[tuple[int, str, int]]:
    try:
        many = qutil.parse_send_many(shown.rebuilt())
    except Invalid:
        return []
    paid = [(payment.place, identity.encode(payment.destination), payment.amount) for payment in many.payments]
    return [(place, address, amount) for place, address, amount in paid if address in ours]


@dataclass(frozen=True, slots=True)
class Credit:
    """Enter it into the ledger, under the payment's key. Args: proof, what agreed with the archive."""

    payment: Payment
    proof: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """The second proof may still come."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Not credited; a person is shown why."""

    payment: Payment
    reason: str


Judgement = Credit | NotYet | Doubtful


@dataclass(frozen=True, slots=True)
class SecondProof:
    """What is known beside the archive.

    Args: log_tick, the last tick whose event logs are in; transfers, the event log of each transaction that was asked for; balances, of
        the addresses; credited, what the ledger ever credited to each address, these payments not among it.
    """

    log_tick: int
    transfers: dict[str, Transfers]
    balances: dict[str, Balance]
    credited: dict[str, int]


def judge(payments: Sequence[Payment], second: SecondProof, confirmations: int = CONFIRMATIONS) -> tuple[Judgement, ...]:
    """What to do with the payments of one tick that is final in the archive (D2).

    Those that did not fly by any account are dropped, and those of a send-many that the contract gave back: that flies, moves nothing and
    costs its payer nothing, so a person would be shown as many of them as somebody likes.
    """
    judged: list[Judgement] = []
    logged = {
        tx_id: Counter((move.source, move.destination, move.amount) for move in seen.transfers) for tx_id, seen in second.transfers.items()
    }
    covered = _covered(payments, second)
    for payment in payments:
        moves = logged.get(payment.tx_id, Counter())
        move = (payment.sender, payment.address, payment.amount)
        moved = moves[move] > 0
        moves[move] -= moved
        if not payment.genuine:
            judged.append(Doubtful(payment, "the archive shows fields that do not make this id"))
        elif not payment.money_flew:
            if moved:
                judged.append(Doubtful(payment, "the event log shows the money moving, the archive says that it did not"))
        elif moved:
            judged.append(Credit(payment, "event log"))
        elif (
            payment.tx_id in second.transfers
            and second.transfers[payment.tx_id].complete
            and second.log_tick >= payment.tick + confirmations
        ):
            if _is_given_back(payment, second.transfers[payment.tx_id]):
                continue
            judged.append(Doubtful(payment, "the archive says that the money moved, the event log does not show it"))
        elif payment.address in covered:
            judged.append(Credit(payment, "incoming counter"))
        else:
            judged.append(NotYet(payment))
    return tuple(judged)


def _is_given_back(payment: Payment, logged: Transfers) -> bool:
    """Whether all that a transaction moved is what its payer sent to the contract, and the same back."""
    moves = {(move.source, move.destination) for move in logged.transfers}
    there, back = (payment.payer, payment.sender), (payment.sender, payment.payer)
    return len(logged.transfers) == len(moves) == len({move.amount for move in logged.transfers}) + 1 and moves == {there, back}


def _covered(payments: Sequence[Payment], second: SecondProof) -> set[str]:
    """The addresses whose incoming counter, from after the tick, covers what was ever credited and all these payments."""
    covered = set()
    for address, balance in second.balances.items():
        mine = [payment for payment in payments if payment.address == address and payment.money_flew]
        due = second.credited.get(address, 0) + sum(payment.amount for payment in mine)
        if mine and balance.incoming_amount >= due and all(balance.valid_for_tick > payment.tick for payment in mine):
            covered.add(address)
    return covered


@dataclass(frozen=True, slots=True)
class Shown:
    """What is proved of a payment at one moment.

    Args: processed, the archive's last tick; target, the payment's; found, the archive shows it in that tick; flown, and says that its
        money moved; second_proof, something else agrees.
    """

    processed: int
    target: int
    found: bool
    flown: bool
    second_proof: bool


def proved(shown: Shown, confirmations: int = CONFIRMATIONS) -> int:
    """The confirmations that are proved, 0 to 3: ticks archived past the payment's that show it flown; the last one needs the second proof."""
    if not (shown.found and shown.flown):
        return 0
    past = min(max(shown.processed - shown.target, 0), confirmations)
    return past if shown.second_proof else min(past, confirmations - 1)


def confirmations_after(before: int, shown: Shown, confirmations: int = CONFIRMATIONS) -> int:
    """The count to show: what was ever proved. It never falls, for what was once proved on this chain stays so, whoever answers next."""
    return max(before, proved(shown, confirmations))


def expected_wait_s(target: int, processed: int, tick_s: float, confirmations: int = CONFIRMATIONS) -> int:
    """About how many whole seconds until the payment can be confirmed, at `tick_s` seconds a tick."""
    return math.ceil(max(0, target + confirmations - processed) * tick_s)
