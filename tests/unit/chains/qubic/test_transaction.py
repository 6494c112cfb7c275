"""Transactions: the vectors byte for byte, and whatever else arrives."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import identity
from qubix.chains.qubic.errors import InvalidKey, InvalidTransaction
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.transaction import AMOUNT_MAX, TRANSACTION_BYTES_MAX, Transaction
from tests.unit.chains.qubic import textbook, vectors
from tests.unit.chains.qubic.vectors import PUBLIC_KEY, SUBSEED

DESTINATION = bytes.fromhex(vectors.KEYS[1]["public_key"])
SIGNED = Transaction(PUBLIC_KEY, DESTINATION, 1000, 50_000_000, 0, b"qubix:job:1").signed_by(SUBSEED)

fields = st.fixed_dictionaries(
    {
        "destination": st.binary(min_size=32, max_size=32),
        "amount": st.integers(0, AMOUNT_MAX),
        "tick": st.integers(0, 2**32 - 1),
        "input_type": st.integers(0, 2**16 - 1),
        "payload": st.binary(max_size=1024),
    }
)
SIGNERS = [(bytes.fromhex(vector["subseed"]), bytes.fromhex(vector["public_key"])) for vector in vectors.KEYS[:5]]


@pytest.mark.parametrize("kind", sorted({vector["kind"] for _, vector in vectors.TRANSACTIONS}))
def test_a_transaction_is_that_of_the_other_implementations(kind: str) -> None:
    for key, vector in vectors.TRANSACTIONS:
        if vector["kind"] == kind:
            check_vector(bytes.fromhex(key["subseed"]), vector)


def check_vector(subseed: bytes, vector: dict[str, Any]) -> None:
    """Built from its fields, a vector has its digest, signature, bytes and id; parsed from its bytes, it is the same."""
    raw = bytes.fromhex(vector["raw_hex"])
    built = Transaction(
        identity.decode(vector["source"]),
        identity.decode(vector["destination"]),
        int(vector["amount"]),
        vector["tick"],
        vector["input_type"],
        bytes.fromhex(vector["payload"]),
    )
    assert built.digest.hex() == vector["unsigned_digest"]
    assert not built.verify()
    signed = built.signed_by(subseed)
    assert signed.signature.hex() == vector["signature"]
    assert signed.to_bytes() == raw == base64.b64decode(vector["raw_base64"])
    assert signed.id == vector["tx_id"]
    assert Transaction.from_bytes(raw) == signed
    assert signed.verify()


@given(st.sampled_from(SIGNERS), fields)
@example(
    SIGNERS[0], {"destination": bytes(32), "amount": AMOUNT_MAX, "tick": 2**32 - 1, "input_type": 2**16 - 1, "payload": b"\xff" * 1024}
)
@example(SIGNERS[0], {"destination": b"\xff" * 32, "amount": 0, "tick": 0, "input_type": 0, "payload": b""})
@settings(max_examples=100, deadline=None)
def test_p_b13_any_built_transaction_parses_back_and_verifies_here_and_elsewhere(
    signer: tuple[bytes, bytes], found: dict[str, Any]
) -> None:
    subseed, source = signer
    built = Transaction(source=source, **found)
    signed = built.signed_by(subseed)
    parsed = Transaction.from_bytes(signed.to_bytes())
    assert parsed == signed == replace(built, signature=signed.signature)
    assert parsed.to_bytes() == signed.to_bytes()
    assert parsed.id == signed.id
    assert parsed.verify()
    point = curve.decode(source)
    assert point is not None
    assert textbook.accepts(signed.to_bytes(), (point[0:2], point[2:4]))


@given(st.integers(0, 8 * len(SIGNED.to_bytes()) - 1))
@settings(max_examples=200, deadline=None)
def test_a_transaction_with_one_wrong_bit_is_no_transaction_or_does_not_verify(bit: int) -> None:
    raw = SIGNED.to_bytes()
    wrong = (int.from_bytes(raw, "little") ^ 1 << bit).to_bytes(len(raw), "little")
    try:
        parsed = Transaction.from_bytes(wrong)
    except InvalidTransaction:
        return
    assert not parsed.verify()
    assert parsed.id != SIGNED.id


@given(st.one_of(st.binary(max_size=300), st.binary(min_size=144, max_size=144), st.binary(min_size=1100, max_size=1300)))
@example(b"")
@example(SIGNED.to_bytes()[:-1])
@example(SIGNED.to_bytes() + b"\0")
@example(b"\0" * 144)
@example(b"\xff" * 144)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_transaction_or_refused_by_name(raw: bytes) -> None:
    try:
        parsed = Transaction.from_bytes(raw)
    except InvalidTransaction:
        return
    assert parsed.to_bytes() == raw
    assert not parsed.verify()


@given(st.binary(min_size=64, max_size=64), st.integers(0, 1100), st.integers(0, 2**63 - 1))
@settings(max_examples=150, deadline=None)
def test_a_body_with_a_right_head_is_a_transaction_or_refused_by_name(signed: bytes, size: int, amount: int) -> None:
    raw = PUBLIC_KEY + DESTINATION + amount.to_bytes(8, "little") + bytes(6) + size.to_bytes(2, "little") + bytes(size) + signed
    if size <= 1024 and amount <= AMOUNT_MAX:
        assert Transaction.from_bytes(raw).to_bytes() == raw
    else:
        with pytest.raises(InvalidTransaction):
            Transaction.from_bytes(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": PUBLIC_KEY[:-1]},
        {"destination": DESTINATION + b"\0"},
        {"amount": -1},
        {"amount": AMOUNT_MAX + 1},
        {"amount": 1.0},
        {"amount": True},
        {"tick": -1},
        {"tick": 2**32},
        {"input_type": 2**16},
        {"payload": bytes(1025)},
        {"signature": bytes(63)},
        {"signature": bytes(65)},
    ],
    ids="-".join,
)
def test_no_transaction_outside_the_limits_exists(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTransaction):
        replace(SIGNED, **wrong)


def test_the_largest_transaction_fits_and_one_byte_more_does_not() -> None:
    largest = replace(SIGNED, payload=bytes(1024)).signed_by(SUBSEED).to_bytes()
    assert len(largest) == TRANSACTION_BYTES_MAX == 1168
    with pytest.raises(InvalidTransaction):
        Transaction.from_bytes(largest + b"\0")


def test_an_unsigned_transaction_has_neither_bytes_nor_id_nor_holds() -> None:
    unsigned = replace(SIGNED, signature=b"")
    with pytest.raises(InvalidTransaction):
        unsigned.to_bytes()
    with pytest.raises(InvalidTransaction):
        _ = unsigned.id
    assert not unsigned.verify()


def test_only_the_source_signs() -> None:
    with pytest.raises(InvalidKey):
        SIGNED.signed_by(bytes.fromhex(vectors.KEYS[1]["subseed"]))


@given(st.integers(0, 1023), st.binary(min_size=64, max_size=64))
@settings(deadline=None, max_examples=50)
def test_no_contract_is_ever_a_valid_source(index: int, signed: bytes) -> None:
    assert not Transaction(identity.contract(index), DESTINATION, 1, 1, signature=signed).verify()


def test_a_twin_of_the_signature_is_not_the_same_transaction() -> None:
    s = int.from_bytes(SIGNED.signature[32:], "little") + curve.ORDER
    twin = replace(SIGNED, signature=SIGNED.signature[:32] + s.to_bytes(32, "little"))
    assert twin.digest == SIGNED.digest
    assert twin.id != SIGNED.id
    assert not twin.verify()
