"""Two readings of the same bytes: the client's and the devnet's agree on everything, or one of them is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import keys, qutil
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.refusal import Code, Refusal
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.transaction import Transaction
from tests.unit.chains.qubic import vectors
from tests.unit.chains.qubic.devnet_world import ANNA, BERT, QX, encoded, order, transfer

keys_ = st.binary(min_size=32, max_size=32)
whole = st.builds(
    encoded,
    keys_,
    keys_,
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**15) | st.sampled_from([-1, 0, 10**15, 10**15 + 1]),
    st.integers(0, 2**32 - 1),
    input_type=st.integers(0, 2**16 - 1),
    payload=st.binary(max_size=64) | st.integers(1020, 1030).map(bytes),
    signature=st.binary(min_size=64, max_size=64),
)
torn = st.tuples(whole, st.integers(0, 400), st.binary(max_size=3)).map(lambda found: found[0][: found[1]] + found[2])


@given(whole | torn | st.binary(max_size=300))
def test_client_and_devnet_read_the_same_transactions(found: bytes) -> None:
    try:
        ours = Transaction.from_bytes(found)
    except InvalidTransaction:
        with pytest.raises(Refusal) as refused:
            wire.read(found)
        assert refused.value.code is Code.INVALID_ARGUMENT
        return
    read = wire.read(found)
    assert (ours.id, ours.source, ours.destination, ours.amount, ours.tick) == (
        read.id,
        read.source,
        read.destination,
        read.amount,
        read.tick,
    )
    assert (ours.input_type, ours.payload, ours.signature, ours.to_bytes()) == (read.input_type, read.payload, read.signature, read.encoded)
    assert wire.tail(found) == (ours.payload, ours.signature)


amounts = st.integers(0, 1000) | st.sampled_from([-1, 10**15 - 1, 10**15, -(2**63), 2**63 - 1])
places = st.lists(st.tuples(st.sampled_from([ANNA, BERT, QX, bytes(32)]), amounts), min_size=25, max_size=25)


@given(places, st.integers(0, 30_000), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, -1]))
def test_client_and_devnet_read_the_same_send_many(asked: list[tuple[bytes, int]], amount: int, input_type: int, extra: int) -> None:
    payload = order(*asked)
    payload = payload + b"\0" if extra > 0 else payload[:extra] if extra else payload
    read = transfer(ANNA, wire.QUTIL, amount, 1, payload, input_type)
    found = wire.payments(read)
    try:
        ours = qutil.parse_send_many(Transaction.from_bytes(read.encoded))
    except InvalidTransaction:
        assert found is None or sum(part for _, part in found) > amount
        return
    assert found is not None
    kept = [(place, *pair) for place, pair in enumerate(found) if pair[1] and pair[0] != bytes(32)]
    assert kept == [(payment.place, payment.destination, payment.amount) for payment in ours.payments]
    assert amount - sum(part for _, part in found) == ours.fee


def test_every_transaction_of_the_vectors_is_read_and_holds() -> None:
    for _, vector in vectors.TRANSACTIONS[:8]:
        read = wire.read(bytes.fromhex(vector["raw_hex"]))
        assert read.id == vector["tx_id"]
        assert wire.is_signed(read)


def test_what_the_faucet_signs_the_client_accepts() -> None:
    found = wire.signed(vectors.SUBSEED, vectors.PUBLIC_KEY, BERT, 5, 77, b"memo")
    ours = Transaction(vectors.PUBLIC_KEY, BERT, 5, 77, payload=b"memo").signed_by(vectors.SUBSEED)
    assert found == ours.to_bytes()


def test_a_twin_with_the_order_added_to_s_is_not_signed() -> None:
    found = wire.signed(vectors.SUBSEED, vectors.PUBLIC_KEY, BERT, 5, 77)
    twin = found[:-32] + (int.from_bytes(found[-32:], "little") + curve.ORDER).to_bytes(32, "little")
    assert wire.is_signed(wire.read(found))
    assert not wire.is_signed(wire.read(twin))
    assert wire.read(found).id != wire.read(twin).id


def test_a_contract_signs_nothing() -> None:
    assert not wire.is_signed(wire.read(encoded(QX, BERT, 1, 1)))
    assert keys.public_key_from_subseed(vectors.SUBSEED) == vectors.PUBLIC_KEY
