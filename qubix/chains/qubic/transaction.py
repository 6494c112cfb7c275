"""Transactions, byte for byte.

    source[32] destination[32] amount:i64 tick:u32 input type:u16 payload size:u16 payload signature[64]

Little-endian (Qubic core, network_messages/transactions.h). The digest that is signed is K12 of all before the signature; the id is the
identity, in lower case, of K12 of all with the signature. A transaction executes in exactly its tick, or never. Towards an ordinary
identity, input type and payload are carried along and not looked at; towards a contract they are a procedure's number and its input.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final, Self

from qubix.chains.qubic import identity, signature
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.k12 import k12
from qubix.chains.qubic.keys import PUBLIC_KEY_BYTES
from qubix.chains.qubic.signature import SIGNATURE_BYTES

AMOUNT_MAX: Final = 10**15
"""MAX_AMOUNT of Qubic's core: ISSUANCE_RATE × 1000."""
PAYLOAD_BYTES_MAX: Final = 1024
"""MAX_INPUT_SIZE of Qubic's core."""
MEMO_BYTES_MAX: Final = 880
"""The largest payload that all wallets take: some refuse transactions of more than 1024 bytes in all."""

_HEAD: Final = struct.Struct("<32s32sqIHH")
TRANSACTION_BYTES_MIN: Final = _HEAD.size + SIGNATURE_BYTES
TRANSACTION_BYTES_MAX: Final = TRANSACTION_BYTES_MIN + PAYLOAD_BYTES_MAX
_U32_MAX: Final = 2**32 - 1
_U16_MAX: Final = 2**16 - 1


@dataclass(frozen=True)
class Transaction:
    """A transaction that a node can parse, signed or not (yet).

    Args: source and destination, public keys of 32 bytes; amount, whole units, 0 to 10¹⁵; tick, below 2³²; input_type, below 2¹⁶;
        payload, at most 1024 bytes; signature, 64 bytes or none.
    Raises: InvalidTransaction for anything else.
    """

    source: bytes
    destination: bytes
    amount: int
    tick: int
    input_type: int = 0
    payload: bytes = b""
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(self.source) != PUBLIC_KEY_BYTES or len(self.destination) != PUBLIC_KEY_BYTES:
            raise InvalidTransaction("source and destination have 32 bytes each")
        _check_range("amount", self.amount, AMOUNT_MAX)
        _check_range("tick", self.tick, _U32_MAX)
        _check_range("input type", self.input_type, _U16_MAX)
        if len(self.payload) > PAYLOAD_BYTES_MAX:
            raise InvalidTransaction(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes", limit=PAYLOAD_BYTES_MAX)
        if len(self.signature) not in (0, SIGNATURE_BYTES):
            raise InvalidTransaction("a signature has 64 bytes")

    def unsigned(self) -> bytes:
        """All bytes before the signature."""
        head = _HEAD.pack(self.source, self.destination, self.amount, self.tick, self.input_type, len(self.payload))
        return head + self.payload

    @property
    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return k12(self.unsigned())

    def signed_by(self, subseed: bytes) -> Self:
        """The same transaction with its signature, always the same one.

        Args: subseed, 32 bytes, of the source.
        Raises: InvalidSeed for another length; InvalidKey if it is not the source's.
        """
        return replace(self, signature=signature.sign(subseed, self.source, self.digest))

    def verify(self) -> bool:
        """Whether the source has signed it (`signature.verify`); False for an unsigned one, and for a contract as the source."""
        return not identity.is_contract(self.source) and signature.verify(self.source, self.digest, self.signature)

    def to_bytes(self) -> bytes:
        """What is broadcast: 144 bytes and the payload.

        Raises: InvalidTransaction if it is not signed.
        """
        if not self.signature:
            raise InvalidTransaction("the transaction is not signed", next_step="sign it with signed_by")
        return self.unsigned() + self.signature

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """The transaction of exactly these bytes; whether its signature holds is `verify`'s question.

        Raises: InvalidTransaction for bytes that `to_bytes` never makes.
        """
        if not TRANSACTION_BYTES_MIN <= len(encoded) <= TRANSACTION_BYTES_MAX:
            raise InvalidTransaction(f"a transaction has {TRANSACTION_BYTES_MIN} to {TRANSACTION_BYTES_MAX} bytes")
        source, destination, amount, tick, input_type, size = _HEAD.unpack_from(encoded)
        if len(encoded) != TRANSACTION_BYTES_MIN + size:
            raise InvalidTransaction("the payload's size does not fit the transaction's")
        return cls(
            source, destination, amount, tick, input_type, bytes(encoded[_HEAD.size : -SIGNATURE_BYTES]), bytes(encoded[-SIGNATURE_BYTES:])
        )

    @property
    def id(self) -> str:
        """60 letters a–z. It covers the signature.

        Raises: InvalidTransaction if it is not signed.
        """
        return identity.encode(k12(self.to_bytes())).lower()


def _check_range(name: str, number: object, highest: int) -> None:
    if type(number) is not int or not 0 <= number <= highest:
        raise InvalidTransaction(f"the {name} is a whole number from 0 to {highest}", limit=highest)
