"""A Qubic wallet that signs texts in each of the three ways; its seed is made anew, and nobody funds it."""

from __future__ import annotations

import base64
from typing import Final

from qubix.chains.qubic import identity, keys, signature
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.k12 import k12
from qubix.chains.qubic.login import WALLETCONNECT_PREFIX, Scheme

_SHIFTED: Final = str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP")


class QubicWallet:
    """Keys of a fresh seed."""

    def __init__(self) -> None:
        self._subseed = keys.subseed_from_seed(keys.new_seed())
        self._public_key = keys.public_key_from_subseed(self._subseed)
        self.identity = identity.encode(self._public_key)

    def sign(self, scheme: Scheme, text: str) -> str:
        """The signature as a wallet of that scheme writes it."""
        return written(scheme, self._signature(scheme, text.encode()))

    def twin(self, scheme: Scheme, text: str) -> str:
        """The same signature with the order added to s, which careless verifiers take too."""
        found = self._signature(scheme, text.encode())
        return written(scheme, found[:32] + (int.from_bytes(found[32:], "little") + curve.ORDER).to_bytes(32, "little"))

    def _signature(self, scheme: Scheme, message: bytes) -> bytes:
        if scheme is Scheme.WALLETCONNECT:
            return signature.sign(self._subseed, self._public_key, k12(WALLETCONNECT_PREFIX.encode() + message))
        if scheme is Scheme.EXTENSION:
            return signature.sign(self._subseed, self._public_key, k12(message))
        return signature.sign_message(self._subseed, self._public_key, message)


def written(scheme: Scheme, signed: bytes) -> str:
    """64 bytes in the letters of a scheme."""
    if scheme is Scheme.WALLETCONNECT:
        return base64.b64encode(signed).decode()
    if scheme is Scheme.EXTENSION:
        return signed.hex()
    return (signed + k12(signed, 1)).hex().translate(_SHIFTED)
