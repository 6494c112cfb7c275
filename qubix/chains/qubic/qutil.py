"""QUTIL's SendToManyV1: up to 25 payments in one transaction.

Contract 4, procedure 1. The payload is 25 destinations of 32 bytes, then 25 amounts (i64); unused places are zero (core,
contracts/QUtil.h). The transaction's amount must be the sum and the fee exactly, or the contract gives everything back. The fee was 10 at
first and may be voted on: ask the contract (function 1, GetSendToManyV1Fee) before sending.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qubix.chains.qubic import identity
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.transaction import AMOUNT_MAX, Transaction

ADDRESS: Final = identity.contract(4)
SEND_TO_MANY: Final = 1
"""The procedure's number, a transaction's input type."""
PAYMENTS_MAX: Final = 25

_PAYLOAD: Final = struct.Struct("<" + "32s" * PAYMENTS_MAX + f"{PAYMENTS_MAX}q")
PAYLOAD_BYTES: Final = _PAYLOAD.size


@dataclass(frozen=True)
class Payment:
    """One payment of a send-many.

    Args: place, 0 to 24, which with the transaction's id makes a payment unique; destination, 32 bytes; amount, whole units, above 0.
    """

    place: int
    destination: bytes
    amount: int


@dataclass(frozen=True)
class SendMany:
    """What a send-many pays if the contract takes it: the payments, and what is left of the amount, the fee."""

    payments: tuple[Payment, ...]
    fee: int


def send_many(source: bytes, payments: Sequence[tuple[bytes, int]], *, tick: int, fee: int) -> Transaction:
    """An unsigned transaction that pays all of `payments`, or none.

    Args: source, 32 bytes; payments, 1 to 25 pairs of destination (32 bytes, no contract) and amount (above 0, below 10¹⁵), which keep
        their places; tick, when it is to execute; fee, what the contract asks, in whole units.
    Raises: InvalidTransaction for anything else, or if sum and fee exceed 10¹⁵.
    """
    if not 1 <= len(payments) <= PAYMENTS_MAX:
        raise InvalidTransaction(f"a send-many has 1 to {PAYMENTS_MAX} payments", limit=PAYMENTS_MAX)
    if fee < 0:
        raise InvalidTransaction("a fee is never negative")
    for destination, amount in payments:
        if len(destination) != len(identity.NULL) or identity.is_contract(destination):
            raise InvalidTransaction("a payment goes to 32 bytes that are no contract's address")
        if type(amount) is not int or not 0 < amount < AMOUNT_MAX:
            raise InvalidTransaction(f"a payment's amount is above 0 and below {AMOUNT_MAX}", limit=AMOUNT_MAX)
    unused = PAYMENTS_MAX - len(payments)
    destinations = [destination for destination, _ in payments] + [identity.NULL] * unused
    amounts = [amount for _, amount in payments] + [0] * unused
    return Transaction(source, ADDRESS, sum(amounts) + fee, tick, SEND_TO_MANY, _PAYLOAD.pack(*destinations, *amounts))


def is_send_many(transaction: Transaction) -> bool:
    """Whether the transaction calls the procedure, rightly or not."""
    return transaction.destination == ADDRESS and transaction.input_type == SEND_TO_MANY


def parse_send_many(transaction: Transaction) -> SendMany:
    """What a send-many pays. That the contract took it stands elsewhere: the amount may be wrong by the fee, and is then given back.

    Empty places, and payments of 0, are left out.
    Raises: InvalidTransaction if it is no send-many, or one that the contract cannot take: another size, an amount below 0 or from 10¹⁵
        on, payments of more than the transaction's amount.
    """
    if not is_send_many(transaction) or len(transaction.payload) != PAYLOAD_BYTES:
        raise InvalidTransaction("the transaction is no send-many")
    places = _PAYLOAD.unpack(transaction.payload)
    destinations, amounts = places[:PAYMENTS_MAX], places[PAYMENTS_MAX:]
    fee = transaction.amount - sum(amounts)
    if not all(0 <= amount < AMOUNT_MAX for amount in amounts) or fee < 0:
        raise InvalidTransaction("the contract gives such payments back")
    payments = (Payment(place, *pair) for place, pair in enumerate(zip(destinations, amounts, strict=True)))
    return SendMany(tuple(payment for payment in payments if payment.amount and payment.destination != identity.NULL), fee)
