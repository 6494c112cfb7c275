"""Identities: the 60 letters in which people read and write a public key.

Four times eight bytes of the key as a little-endian integer in 14 letters, base 26, the least significant letter first (A is 0); then
four letters of checksum, the low 18 bits of K12(key) in the same way (Qubic core, four_q.h: getIdentity).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from qubix.chains.qubic.errors import InvalidIdentity
from qubix.chains.qubic.k12 import k12
from qubix.chains.qubic.keys import PUBLIC_KEY_BYTES

IDENTITY_LETTERS: Final = 60
CONTRACTS_MAX: Final = 1024
"""MAX_NUMBER_OF_CONTRACTS of Qubic's core."""
NULL: Final = bytes(PUBLIC_KEY_BYTES)
"""Contract 0's address: what is sent there is burned."""

_FRAGMENT_LETTERS: Final = 14
_CHECKSUM_LETTERS: Final = 4
_CHECKSUM_MASK: Final = (1 << 18) - 1
_IDENTITY: Final = re.compile(rf"[A-Z]{{{IDENTITY_LETTERS}}}")
_LETTERS: Final = [chr(ord("A") + n) for n in range(26)]


def encode(public_key: bytes) -> str:
    """The identity, 60 letters A–Z, of a public key, 32 bytes.

    Raises: InvalidIdentity for another length.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise InvalidIdentity("an identity stands for 32 bytes")
    fragments = struct.unpack("<4Q", public_key)
    checksum = int.from_bytes(k12(public_key, 3), "little") & _CHECKSUM_MASK
    return "".join(_letters(fragment, _FRAGMENT_LETTERS) for fragment in fragments) + _letters(checksum, _CHECKSUM_LETTERS)


def decode(identity: str) -> bytes:
    """The public key, 32 bytes, of an identity.

    That the key is a point of the curve, so that somebody may hold it, is not checked: contracts have identities too.
    Raises: InvalidIdentity unless it is 60 letters A–Z with its four numbers in range and the right checksum.
    """
    if not _IDENTITY.fullmatch(identity):
        raise InvalidIdentity("an identity is 60 upper-case letters A to Z", next_step="copy it from the wallet that shall get the money")
    fragments = [_number(identity[start : start + _FRAGMENT_LETTERS]) for start in range(0, 4 * _FRAGMENT_LETTERS, _FRAGMENT_LETTERS)]
    if max(fragments) >> 64:
        raise InvalidIdentity("these letters are no identity", next_step="copy it again from the wallet")
    public_key = struct.pack("<4Q", *fragments)
    if encode(public_key) != identity:
        raise InvalidIdentity("the identity's last four letters do not fit the others", next_step="copy it again from the wallet")
    return public_key


def contract(index: int) -> bytes:
    """The address, 32 bytes, of a contract: its index as the first of four 64-bit integers (core, contract_def.h).

    Raises: InvalidIdentity unless 0 ≤ index < 1024.
    """
    if not 0 <= index < CONTRACTS_MAX:
        raise InvalidIdentity(f"a contract's index is between 0 and {CONTRACTS_MAX - 1}")
    return struct.pack("<4Q", index, 0, 0, 0)


def is_contract(public_key: bytes) -> bool:
    """Whether 32 bytes are kept for a contract, present or future (NULL is one): nobody holds their key."""
    return not any(public_key[8:])


def _letters(number: int, count: int) -> str:
    letters = []
    for _ in range(count):
        number, letter = divmod(number, 26)
        letters.append(_LETTERS[letter])
    return "".join(letters)


def _number(letters: str) -> int:
    number = 0
    for letter in reversed(letters):
        number = number * 26 + ord(letter) - ord("A")
    return number
