"""Wallet logins: the three forms of a signed text, judged by our own text alone."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import login
from qubix.chains.qubic.k12 import k12
from qubix.chains.qubic.login import Scheme
from tests.unit.chains.qubic import vectors
from tests.unit.chains.qubic.vectors import SIGNATURE

FIELD = {
    Scheme.WALLETCONNECT: ("walletconnect_sign", "signature"),
    Scheme.EXTENSION: ("extension_sign", "signatureHex"),
    Scheme.MANUAL: ("manual_sign", "signature"),
}
FIRST, OTHER = vectors.KEYS[0], vectors.KEYS[1]
schemes = pytest.mark.parametrize("scheme", Scheme)


def signed_text(vector: dict[str, Any], scheme: Scheme) -> tuple[str, str]:
    """Text and signature, as the wallet gave them."""
    form, member = FIELD[scheme]
    return vector[form]["message"], vector[form][member]


@schemes
def test_a_wallet_s_login_is_accepted_for_its_text_and_identity_alone(scheme: Scheme) -> None:
    for vector in vectors.KEYS:
        text, signed = signed_text(vector, scheme)
        stranger = OTHER if vector is FIRST else FIRST
        assert login.verify(scheme, vector["identity"], text, signed), vector["name"]
        assert not login.verify(scheme, vector["identity"], text + " ", signed)
        assert not login.verify(scheme, stranger["identity"], text, signed)


@schemes
def test_a_login_of_one_form_is_none_of_another(scheme: Scheme) -> None:
    raw = {
        Scheme.WALLETCONNECT: base64.b64decode(signed_text(FIRST, Scheme.WALLETCONNECT)[1]),
        Scheme.EXTENSION: bytes.fromhex(signed_text(FIRST, Scheme.EXTENSION)[1]),
        Scheme.MANUAL: bytes.fromhex(signed_text(FIRST, Scheme.MANUAL)[1].translate(str.maketrans("ABCDEFGHIJKLMNOP", "0123456789abcdef")))[
            :-1
        ],
    }
    for other, signature in raw.items():
        text, right = signed_text(FIRST, scheme)
        written = as_written(scheme, signature)
        assert login.verify(scheme, FIRST["identity"], text, written) == (other is scheme)
        if other is scheme:
            assert written == right


def as_written(scheme: Scheme, signature: bytes) -> str:
    """A signature in the letters of a scheme."""
    if scheme is Scheme.WALLETCONNECT:
        return base64.b64encode(signature).decode()
    if scheme is Scheme.EXTENSION:
        return signature.hex()
    return (signature + k12(signature, 1)).hex().translate(str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP"))


def test_the_digest_that_a_walletconnect_wallet_returns_is_not_the_one_it_signed() -> None:
    found = FIRST["walletconnect_sign"]
    signature = base64.b64decode(found["signature"])
    message = (login.WALLETCONNECT_PREFIX + found["message"]).encode()
    assert base64.b64decode(found["digest"]) == k12(message + signature) != k12(message)
    assert base64.b64decode(found["signedData"]).startswith(message)


def test_a_manual_signature_with_a_wrong_checksum_is_refused() -> None:
    text, signed = signed_text(FIRST, Scheme.MANUAL)
    assert not login.verify(Scheme.MANUAL, FIRST["identity"], text, signed[:-1] + ("A" if signed[-1] != "A" else "B"))
    assert not login.verify(Scheme.MANUAL, FIRST["identity"], text, signed.lower())


@schemes
@pytest.mark.parametrize(
    "change", [lambda signed: signed + "\n", lambda signed: " " + signed, lambda signed: signed[:-1], lambda signed: ""]
)
def test_a_signature_has_one_spelling(scheme: Scheme, change: Any) -> None:
    text, signed = signed_text(FIRST, scheme)
    assert not login.verify(scheme, FIRST["identity"], text, change(signed))


def test_base64_with_other_unused_bits_is_refused() -> None:
    text, signed = signed_text(FIRST, Scheme.WALLETCONNECT)
    twin = signed[:-3] + chr(ord(signed[-3]) + 1) + "=="
    assert base64.b64decode(twin) == base64.b64decode(signed)
    assert not login.verify(Scheme.WALLETCONNECT, FIRST["identity"], text, twin)


@schemes
@given(signer=st.text(), text=st.text(), signed=st.text())
def test_any_strings_are_answered_no(scheme: Scheme, signer: str, text: str, signed: str) -> None:
    assert login.verify(scheme, signer, text, signed) is False
    assert login.verify(scheme, FIRST["identity"], text, signed) is False


@schemes
@given(text=st.text(st.characters(exclude_categories=())))
@settings(max_examples=30, deadline=None)
def test_any_text_is_answered_no_for_a_well_formed_signature(scheme: Scheme, text: str) -> None:
    assert login.verify(scheme, FIRST["identity"], text, as_written(scheme, SIGNATURE)) is False
