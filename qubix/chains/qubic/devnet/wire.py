"""How the devnet reads transactions: a second implementation, on purpose.

It knows nothing of `qubix.chains.qubic.transaction` and `qutil`, so that a mistake there shows here; a property test holds them together.
The layout is that of Qubic's core (network_messages/transactions.h, contracts/QUtil.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qubix.chains.qubic import identity, signature
from qubix.chains.qubic.devnet.refusal import bad
from qubix.chains.qubic.k12 import k12

AMOUNT_MAX: Final = 10**15
PAYLOAD_BYTES_MAX: Final = 1024
QUTIL: Final = identity.contract(4)
SEND_TO_MANY: Final = 1
_SEND_TO_MANY_PLACES: Final = 25
_HEAD_BYTES: Final = 80
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Wire:
    """A transaction as it came: `encoded` is all of it, the rest is read from there; `id` has 60 letters a–z."""

    id: str
    source: bytes
    destination: bytes
    amount: int
    tick: int
    input_type: int
    payload: bytes
    signature: bytes
    encoded: bytes


def read(encoded: bytes) -> Wire:
    """The transaction of these bytes, its form checked, its signature not.

    Raises: Refusal (3) for sizes that do not fit, an amount below 0 or above 10¹⁵, a payload of more than 1024 bytes.
    """
    if len(encoded) < _HEAD_BYTES + _SIGNATURE_BYTES:
        raise bad(f"transaction of {len(encoded)} bytes is too short")
    payload_bytes = _number(encoded, 78, 2)
    if payload_bytes > PAYLOAD_BYTES_MAX:
        raise bad(f"input size {payload_bytes} is above {PAYLOAD_BYTES_MAX}")
    if len(encoded) != _HEAD_BYTES + payload_bytes + _SIGNATURE_BYTES:
        raise bad(f"input size {payload_bytes} does not fit a transaction of {len(encoded)} bytes")
    amount = _number(encoded, 64, 8, signed=True)
    if not 0 <= amount <= AMOUNT_MAX:
        raise bad(f"amount {amount} is out of range")
    end = _HEAD_BYTES + payload_bytes
    return Wire(
        id=identity.encode(k12(encoded)).lower(),
        source=encoded[:32],
        destination=encoded[32:64],
        amount=amount,
        tick=_number(encoded, 72, 4),
        input_type=_number(encoded, 76, 2),
        payload=encoded[_HEAD_BYTES:end],
        signature=encoded[end:],
        encoded=encoded,
    )


def tail(encoded: bytes) -> tuple[bytes, bytes]:
    """Payload and signature of a transaction that was read before."""
    return encoded[_HEAD_BYTES:-_SIGNATURE_BYTES], encoded[-_SIGNATURE_BYTES:]


def is_signed(wire: Wire) -> bool:
    """Whether its source has signed it, strictly; a contract signs nothing."""
    digest = k12(wire.encoded[:-_SIGNATURE_BYTES])
    return not identity.is_contract(wire.source) and signature.verify(wire.source, digest, wire.signature)


def signed(subseed: bytes, source: bytes, destination: bytes, amount: int, tick: int, payload: bytes = b"") -> bytes:
    """The bytes of a signed plain transfer, as the faucet sends it.

    Args: subseed, source, destination, 32 bytes each; amount, whole units; tick, its target; payload, at most 1024 bytes.
    """
    numbers = ((amount, 8), (tick, 4), (0, 2), (len(payload), 2))
    body = source + destination + b"".join(number.to_bytes(size, "little") for number, size in numbers) + payload
    return body + signature.sign(subseed, source, k12(body))


def payments(wire: Wire) -> list[tuple[bytes, int]] | None:
    """What a send-many asks QUTIL to pay, empty places included; None if it is no call of that procedure or one of wrong size or amounts."""
    if wire.destination != QUTIL or wire.input_type != SEND_TO_MANY or len(wire.payload) != _SEND_TO_MANY_PLACES * 40:
        return None
    amounts_from = _SEND_TO_MANY_PLACES * 32
    asked = [
        (wire.payload[32 * place : 32 * place + 32], _number(wire.payload, amounts_from + 8 * place, 8, signed=True))
        for place in range(_SEND_TO_MANY_PLACES)
    ]
    return asked if all(0 <= amount < AMOUNT_MAX for _, amount in asked) else None


def _number(encoded: bytes, start: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(encoded[start : start + size], "little", signed=signed)
