"""SchnorrQ, deterministic, as Qubic's nodes sign and verify (core, four_q.h: sign, verify), made strict.

With k = K12(subseed, 64): the private key is k[:32], the nonce ρ = K12(k[32:] ‖ m, 64)[:32] mod r, the commitment R = encode(ρ·G), the
challenge h = K12(R ‖ public key ‖ m, 64)[:32] mod r, and s = (ρ − h·k[:32]) mod r. The signature is R ‖ s; it holds when
encode(s·G + h·A) = R for the key's point A.

Nodes before 2026-05-27 took s + r for s (core, commit 05f73489), and client libraries still take it, and take any signature "by" the neutral
point, QX's address. Both let a third party make a second valid transaction, or any; here neither passes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from qubix.chains.qubic import keys
from qubix.chains.qubic.errors import InvalidDigest, InvalidKey, InvalidSeed
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.k12 import k12

DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_KNOWN_KEYS_MAX: Final = 512
"""How many keys stay prepared, some 20 kB each."""


def sign(subseed: bytes, public_key: bytes, digest: bytes) -> bytes:
    """Sign a digest.

    Args: subseed, 32 bytes; public_key, 32 bytes, that subseed's own; digest, 32 bytes.
    Returns: 64 bytes, the same for the same arguments.
    Raises: InvalidSeed, InvalidDigest for another length; InvalidKey if the key is not the subseed's.
    """
    if len(digest) != DIGEST_BYTES:
        raise InvalidDigest("a digest has 32 bytes")
    return sign_message(subseed, public_key, digest)


def sign_message(subseed: bytes, public_key: bytes, message: bytes) -> bytes:
    """Sign bytes of any length as they are, unhashed, as wallets' "Sign message" does. Transactions are signed by their digest: `sign`.

    Raises: InvalidSeed, InvalidKey as `sign` does.
    """
    if len(subseed) != keys.SUBSEED_BYTES:
        raise InvalidSeed("a subseed has 32 bytes")
    expanded = k12(subseed, 64)
    private = int.from_bytes(expanded[:32], "little") % curve.ORDER
    # Two signatures of one message under two keys share ρ and give the private key away: never sign under a key that is not ours.
    if keys.public_key_of(private) != public_key:
        raise InvalidKey("the public key is not the one of this subseed", next_step="derive it with keys.public_key_from_subseed")
    nonce = int.from_bytes(k12(expanded[32:] + message), "little") % curve.ORDER
    commitment = keys.public_key_of(nonce)
    s = (nonce - _challenge(commitment, public_key, message) * private) % curve.ORDER
    return commitment + s.to_bytes(32, "little")


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the signature over a digest holds, strictly. Any bytes of any length get an answer; nothing is raised.

    False also for: a digest that is not 32 bytes, s not below the order, bit 7 of byte 15 set in key or commitment, a key that is no
    point of the curve, or not of prime order (nodes refuse the neutral point and small orders; a key from a seed has prime order).
    """
    return len(digest) == DIGEST_BYTES and verify_message(public_key, digest, signature)


def verify_message(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature over bytes of any length, unhashed, holds; as strict as `verify`."""
    if len(public_key) != keys.PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    commitment, s = signature[:32], int.from_bytes(signature[32:], "little")
    if (public_key[15] | commitment[15]) & 0x80 or s >= curve.ORDER:
        return False
    key = _prepared(bytes(public_key))
    if key is None:
        return False
    return curve.encode(curve.add_base_multiple(key.times(_challenge(commitment, public_key, message)), s)) == commitment


def is_public_key(public_key: bytes) -> bool:
    """Whether these bytes can be somebody's public key: a point of prime order. What is sent to other keys, nobody can ever move.

    A contract's address may look like one (465's does): ask `identity.is_contract` too.
    """
    return len(public_key) == keys.PUBLIC_KEY_BYTES and _prepared(bytes(public_key)) is not None


def _challenge(commitment: bytes, public_key: bytes, message: bytes) -> int:
    return int.from_bytes(k12(commitment + public_key + message), "little") % curve.ORDER


@lru_cache(_KNOWN_KEYS_MAX)
def _prepared(public_key: bytes) -> curve.Multiples | None:
    """The key made ready for verifications; None if it is none."""
    point = curve.decode(public_key)
    if point is None:
        return None
    multiples = curve.Multiples(point)
    return multiples if multiples.have_prime_order() else None
