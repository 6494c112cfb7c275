"""Identities: the letters, the checksum, the contracts' addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import identity
from qubix.chains.qubic.errors import InvalidIdentity
from tests.unit.chains.qubic import vectors

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_a_key_has_the_identity_of_the_other_implementations() -> None:
    for vector in vectors.KEYS:
        public_key = bytes.fromhex(vector["public_key"])
        assert identity.encode(public_key) == vector["identity"]
        assert identity.decode(vector["identity"]) == public_key
        assert not identity.is_contract(public_key)


def test_a_malformed_identity_is_refused() -> None:
    assert len(vectors.BAD_IDENTITIES) == 30
    for found in vectors.BAD_IDENTITIES:
        with pytest.raises(InvalidIdentity):
            identity.decode(found)


def test_a_fragment_beyond_64_bits_is_refused_even_if_all_else_fits() -> None:
    # 2^64 in the first 14 letters would wrap around to the key of zeros, whose checksum is appended here.
    wrapped = identity._letters(2**64, 14) + identity.encode(bytes(32))[14:]
    with pytest.raises(InvalidIdentity):
        identity.decode(wrapped)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_survives_its_identity(public_key: bytes) -> None:
    assert identity.decode(identity.encode(public_key)) == public_key


@given(st.binary(max_size=80).filter(lambda found: len(found) != 32))
def test_only_32_bytes_have_an_identity(found: bytes) -> None:
    with pytest.raises(InvalidIdentity):
        identity.encode(found)


@given(st.one_of(st.text(), st.text(LETTERS, min_size=60, max_size=60), st.text(LETTERS + "a0É\n", min_size=59, max_size=61)))
def test_any_text_is_an_identity_or_refused_by_name(text: str) -> None:
    try:
        public_key = identity.decode(text)
    except InvalidIdentity:
        return
    assert identity.encode(public_key) == text


def test_each_single_wrong_letter_is_noticed() -> None:
    right = vectors.KEYS[0]["identity"]
    accepted = 0
    for place in range(60):
        for letter in LETTERS.replace(right[place], ""):
            try:
                identity.decode(right[:place] + letter + right[place + 1 :])
            except InvalidIdentity:
                continue
            accepted += 1
    assert accepted == 0


@pytest.mark.parametrize(("index", "found"), vectors.CONTRACTS.items())
def test_a_contract_has_its_published_identity(index: int, found: str) -> None:
    assert identity.encode(identity.contract(index)) == found
    assert identity.is_contract(identity.decode(found))


@pytest.mark.parametrize("index", [-1, 1024, 2**64])
def test_there_are_1024_contracts(index: int) -> None:
    with pytest.raises(InvalidIdentity):
        identity.contract(index)


def test_the_null_identity_is_contract_zero() -> None:
    assert identity.contract(0) == identity.NULL == bytes(32)
