"""QUTIL's send-many: the vectors, the exact amount, and lists that the contract gives back."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.transaction import AMOUNT_MAX, Transaction
from tests.unit.chains.qubic import vectors
from tests.unit.chains.qubic.vectors import PUBLIC_KEY

PAYEE = bytes.fromhex(vectors.KEYS[1]["public_key"])
SEND_MANY = [found for _, found in vectors.TRANSACTIONS if found["kind"] == "qutil_sendmany"]

payees = st.binary(min_size=32, max_size=32).filter(lambda found: not identity.is_contract(found))
payment_lists = st.lists(st.tuples(payees, st.integers(1, 10**13)), min_size=1, max_size=25)


def listed(amounts: list[int], amount: int) -> Transaction:
    """A send-many of any amounts, as nobody hinders a stranger from making it."""
    places = amounts + [0] * (25 - len(amounts))
    return Transaction(PUBLIC_KEY, qutil.ADDRESS, amount, 1, 1, PAYEE * 25 + struct.pack("<25q", *places))


@pytest.mark.parametrize("vector", SEND_MANY)
def test_a_send_many_of_the_other_implementations_is_read_and_made_again(vector: dict[str, Any]) -> None:
    found = Transaction.from_bytes(bytes.fromhex(vector["raw_hex"]))
    parsed = qutil.parse_send_many(found)
    assert parsed.payments
    assert sum(payment.amount for payment in parsed.payments) + parsed.fee == int(vector["amount"])
    pairs = [(payment.destination, payment.amount) for payment in parsed.payments]
    assert qutil.send_many(found.source, pairs, tick=found.tick, fee=parsed.fee) == replace(found, signature=b"")


@given(payment_lists, st.integers(0, 10**6))
def test_any_list_of_payments_parses_back_with_its_places(pairs: list[tuple[bytes, int]], fee: int) -> None:
    made = qutil.send_many(PUBLIC_KEY, pairs, tick=7, fee=fee)
    assert made.destination == identity.decode(vectors.CONTRACTS[4])
    assert (made.input_type, len(made.payload)) == (1, 1000)
    assert made.amount == sum(amount for _, amount in pairs) + fee
    parsed = qutil.parse_send_many(made)
    assert parsed.fee == fee
    assert parsed.payments == tuple(qutil.Payment(place, *pair) for place, pair in enumerate(pairs))


@pytest.mark.parametrize(
    ("pairs", "fee"),
    [
        ([], 10),
        ([(PAYEE, 1)] * 26, 10),
        ([(PAYEE, 0)], 10),
        ([(PAYEE, -1)], 10),
        ([(PAYEE, AMOUNT_MAX)], 0),
        ([(PAYEE, 1.5)], 10),
        ([(PAYEE, AMOUNT_MAX // 2)] * 3, 10),
        ([(PAYEE[:-1], 1)], 10),
        ([(identity.NULL, 1)], 10),
        ([(identity.contract(11), 1)], 10),
        ([(PAYEE, 1)], -1),
    ],
)
def test_payments_that_would_not_arrive_are_refused(pairs: list[tuple[bytes, int]], fee: int) -> None:
    with pytest.raises(InvalidTransaction):
        qutil.send_many(PUBLIC_KEY, pairs, tick=1, fee=fee)


def test_empty_places_and_payments_of_nothing_are_left_out_and_the_others_keep_their_places() -> None:
    found = listed([0, 5, 0, 7], 22)
    assert qutil.parse_send_many(found) == qutil.SendMany((qutil.Payment(1, PAYEE, 5), qutil.Payment(3, PAYEE, 7)), 10)
    burned = replace(found, payload=bytes(32 * 25) + found.payload[800:])
    assert qutil.parse_send_many(burned) == qutil.SendMany((), 10)


@pytest.mark.parametrize(
    "found",
    [
        listed([1], 0),
        listed([-1, 2], 1000),
        listed([AMOUNT_MAX], AMOUNT_MAX),
        listed([2**62, 2**62, 2**62, 2**62], 10),
        listed([2**63 - 1, 2**63 - 1, 12], 10),
        replace(listed([1], 11), input_type=2),
        replace(listed([1], 11), destination=PAYEE),
        replace(listed([1], 11), payload=bytes(999)),
        replace(listed([1], 11), payload=bytes(1001)),
    ],
)
def test_what_the_contract_gives_back_pays_nobody(found: Transaction) -> None:
    with pytest.raises(InvalidTransaction):
        qutil.parse_send_many(found)


@given(st.binary(max_size=1024), st.integers(0, AMOUNT_MAX))
def test_any_payload_is_a_send_many_within_its_amount_or_refused_by_name(payload: bytes, amount: int) -> None:
    try:
        parsed = qutil.parse_send_many(Transaction(PUBLIC_KEY, qutil.ADDRESS, amount, 1, 1, payload))
    except InvalidTransaction:
        return
    assert sum(payment.amount for payment in parsed.payments) + parsed.fee == amount
    assert parsed.fee >= 0
