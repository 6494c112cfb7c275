"""Seeds, subseeds and public keys.

A seed is what a wallet shows its owner; all else follows from it: subseed = K12(letters as 0–25), private key = K12(subseed),
public key = encode(private key · G) (Qubic core, four_q.h: getSubseed, getPrivateKey, getPublicKey).
"""

from __future__ import annotations

import re
import secrets
import string
from typing import Final

from qubix.chains.qubic.errors import InvalidSeed
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.k12 import k12

SEED_LETTERS: Final = 55
SUBSEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32

_SEED: Final = re.compile(rf"[a-z]{{{SEED_LETTERS}}}")


def new_seed() -> str:
    """55 letters from the operating system's randomness (258 bits)."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(SEED_LETTERS))


def subseed_from_seed(seed: str) -> bytes:
    """The 32 bytes from which a wallet signs; TypeScript libraries call them the private key.

    Raises: InvalidSeed unless the seed is 55 letters a–z.
    """
    if not _SEED.fullmatch(seed):
        raise InvalidSeed("a seed is 55 lower-case letters a to z")
    return k12(bytes(ord(letter) - ord("a") for letter in seed))


def public_key_from_subseed(subseed: bytes) -> bytes:
    """The public key, 32 bytes, of a subseed, 32 bytes.

    Raises: InvalidSeed for another length.
    """
    if len(subseed) != SUBSEED_BYTES:
        raise InvalidSeed("a subseed has 32 bytes")
    return public_key_of(int.from_bytes(k12(subseed), "little") % curve.ORDER)


def public_key_of(scalar: int) -> bytes:
    """The public key, 32 bytes, of a private scalar, 0 ≤ scalar < ORDER."""
    return curve.encode(curve.add_base_multiple(curve.NEUTRAL, scalar))
