"""SchnorrQ: the vectors, every single wrong bit, and what lax verifiers let through."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import identity, keys, signature
from qubix.chains.qubic.errors import InvalidDigest, InvalidKey, InvalidSeed
from qubix.chains.qubic.fourq import curve, field
from qubix.chains.qubic.k12 import k12
from tests.unit.chains.qubic import vectors
from tests.unit.chains.qubic.vectors import DIGEST, PUBLIC_KEY, SIGNATURE, SUBSEED

subseeds = st.binary(min_size=32, max_size=32)
digests = st.binary(min_size=32, max_size=32)


def flipped(original: bytes, bit: int) -> bytes:
    return (int.from_bytes(original, "little") ^ 1 << bit).to_bytes(len(original), "little")


def small_order_keys() -> list[bytes]:
    """Encodings of points whose order divides 392."""
    found = {encoded: None for encoded in (identity.contract(1), curve.encode(curve.from_affine((0, 0), (field.P - 1, 0))))}
    for n in range(2, 120):
        point = curve.decode(n.to_bytes(32, "little"))
        if point is not None:
            found[curve.encode(curve.Multiples(point).times(curve.ORDER))] = None
    return list(found)


def test_a_signature_is_that_of_the_other_implementations() -> None:
    for vector in vectors.KEYS:
        subseed, public_key = bytes.fromhex(vector["subseed"]), bytes.fromhex(vector["public_key"])
        digest = bytes.fromhex(vector["digest_sign"]["digest"])
        assert digest == k12(vector["digest_sign"]["message_utf8"].encode())
        signed = signature.sign(subseed, public_key, digest)
        assert signed.hex() == vector["digest_sign"]["signature"]
        assert signature.verify(public_key, digest, signed)
        assert signature.is_public_key(public_key)


@pytest.mark.parametrize("why", sorted({vector["why"] for vector in vectors.REFUSED}))
def test_a_signature_that_must_be_refused_is_refused(why: str) -> None:
    found = [vector for vector in vectors.REFUSED if vector["why"] == why]
    assert len(found) == 12
    for vector in found:
        assert vector["expect"] is False
        assert not signature.verify(*(bytes.fromhex(vector[name]) for name in ("public_key", "digest", "signature"))), vector


@given(subseeds, digests)
@settings(max_examples=100, deadline=None)
def test_signing_is_deterministic_and_holds_for_this_digest_alone(subseed: bytes, digest: bytes) -> None:
    public_key = keys.public_key_from_subseed(subseed)
    signed = signature.sign(subseed, public_key, digest)
    assert signature.sign(subseed, public_key, digest) == signed
    assert signature.verify(public_key, digest, signed)
    assert not signature.verify(public_key, k12(digest), signed)


@pytest.mark.parametrize("subject", range(3), ids=["key", "digest", "signature"])
def test_every_single_wrong_bit_is_noticed(subject: int) -> None:
    right = [PUBLIC_KEY, DIGEST, SIGNATURE]
    assert signature.verify(*right)
    for bit in range(8 * len(right[subject])):
        wrong = list(right)
        wrong[subject] = flipped(right[subject], bit)
        assert not signature.verify(*wrong), bit


@given(subseeds, digests)
@settings(max_examples=30, deadline=None)
def test_the_twin_with_the_order_added_is_refused(subseed: bytes, digest: bytes) -> None:
    public_key = keys.public_key_from_subseed(subseed)
    signed = signature.sign(subseed, public_key, digest)
    s = int.from_bytes(signed[32:], "little")
    assert s < curve.ORDER
    for twin in range(s + curve.ORDER, 2**256, curve.ORDER * 97):
        assert not signature.verify(public_key, digest, signed[:32] + twin.to_bytes(32, "little"))


def test_no_key_of_small_order_signs_anything() -> None:
    found = small_order_keys()
    assert len(found) > 20
    for key in found:
        assert not signature.is_public_key(key)
        for commitment in (key, *found[:4]):
            assert not signature.verify(key, DIGEST, commitment + bytes(32))


def test_a_key_with_a_part_of_small_order_is_refused() -> None:
    (addend,) = curve.normalised([curve.from_affine((0, 0), (field.P - 1, 0))])
    scalar = 12345
    mixed = curve.encode(curve.add(curve.add_base_multiple(curve.NEUTRAL, scalar), addend))
    assert curve.decode(mixed) is not None
    assert not signature.is_public_key(mixed)
    # An even challenge would cancel the part of order two: the honest equation holds, and is still not taken.
    for nonce in range(1, 40):
        commitment = keys.public_key_of(nonce)
        challenge = int.from_bytes(k12(commitment + mixed + DIGEST), "little") % curve.ORDER
        if challenge % 2 == 0:
            s = (nonce - challenge * scalar) % curve.ORDER
            assert not signature.verify(mixed, DIGEST, commitment + s.to_bytes(32, "little"))
            return
    pytest.fail("no even challenge")


def test_a_contract_s_address_may_look_like_a_key_and_is_known_for_a_contract() -> None:
    assert not any(signature.is_public_key(identity.contract(index)) for index in vectors.CONTRACTS)
    assert signature.is_public_key(identity.contract(465))
    assert identity.is_contract(identity.contract(465))


def test_bit_7_of_byte_15_is_never_set() -> None:
    assert not signature.verify(flipped(PUBLIC_KEY, 127), DIGEST, SIGNATURE)
    assert not signature.verify(PUBLIC_KEY, DIGEST, flipped(SIGNATURE, 127))


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=150))
@example(bytes(32), bytes(32), bytes(64))
@example(b"\xff" * 32, bytes(32), b"\xff" * 64)
@example(PUBLIC_KEY, DIGEST, b"")
@example(PUBLIC_KEY, DIGEST[1:], SIGNATURE)
@example(PUBLIC_KEY + b"\0", DIGEST, SIGNATURE)
@example(PUBLIC_KEY, DIGEST, SIGNATURE + b"\0")
@settings(max_examples=200, deadline=None)
def test_verifying_any_bytes_answers_no_and_raises_nothing(public_key: bytes, digest: bytes, signed: bytes) -> None:
    assert signature.verify(public_key, digest, signed) is False
    assert signature.verify_message(digest, signed, public_key) is False


@given(st.binary(min_size=32, max_size=32), digests, st.binary(min_size=64, max_size=64))
@settings(max_examples=200, deadline=None)
def test_no_bytes_of_the_right_size_happen_to_be_a_signature(public_key: bytes, digest: bytes, signed: bytes) -> None:
    assert signature.verify(public_key, digest, signed) is False
    assert signature.verify(PUBLIC_KEY, digest, signed) is False


def test_nothing_is_signed_under_another_s_key() -> None:
    with pytest.raises(InvalidKey):
        signature.sign(SUBSEED, bytes.fromhex(vectors.KEYS[1]["public_key"]), DIGEST)
    with pytest.raises(InvalidKey):
        signature.sign(SUBSEED, PUBLIC_KEY[:-1], DIGEST)


def test_subseed_and_digest_have_32_bytes() -> None:
    with pytest.raises(InvalidSeed):
        signature.sign(SUBSEED + b"\0", PUBLIC_KEY, DIGEST)
    with pytest.raises(InvalidDigest):
        signature.sign(SUBSEED, PUBLIC_KEY, DIGEST + b"\0")


def test_a_message_is_signed_as_it_is_and_differs_from_its_digest() -> None:
    signed = signature.sign_message(SUBSEED, PUBLIC_KEY, b"a text")
    assert signature.verify_message(PUBLIC_KEY, b"a text", signed)
    assert not signature.verify_message(PUBLIC_KEY, b"a test", signed)
    assert not signature.verify(PUBLIC_KEY, k12(b"a text"), signed)
    assert not signature.verify(PUBLIC_KEY, b"a text", signed)
