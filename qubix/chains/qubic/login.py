"""Whether a wallet has signed a text: the three ways in which Qubic wallets sign.

Each takes the text as *we* stored it and computes what is signed from that; what a wallet says it has signed is never read. The text should
be printable, and longer than a digest (32 bytes): two of the three schemes tell a text from a transaction by nothing else.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Callable
from typing import Final

from qubix.chains.qubic import identity, signature
from qubix.chains.qubic.errors import InvalidIdentity
from qubix.chains.qubic.k12 import k12

WALLETCONNECT_PREFIX: Final = "Qubic Signed Message:\n"

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{85}[AQgw]==")
_HEX: Final = re.compile(r"[0-9a-fA-F]{128}")
_SHIFTED_HEX: Final = re.compile(r"[A-P]{130}")
_UNSHIFTED: Final = str.maketrans("ABCDEFGHIJKLMNOP", "0123456789abcdef")


class Scheme(enum.StrEnum):
    """How a wallet signs."""

    WALLETCONNECT = "walletconnect"
    EXTENSION = "extension"
    MANUAL = "manual"


def verify(scheme: Scheme, signer: str, text: str, signed: str) -> bool:
    """Whether the holder of an identity has signed a text.

    Args: signer, the identity; text, our own; signed, the signature as the wallet of that scheme writes it.
    Returns: False for any other strings; nothing is raised.
    """
    try:
        public_key = identity.decode(signer)
    except InvalidIdentity:
        return False
    return _BY_SCHEME[scheme](public_key, text, signed)


def verify_walletconnect(public_key: bytes, text: str, signed: str) -> bool:
    """WalletConnect's qubic_sign (mobile wallets): over K12 of a prefix and the text; `signed` is its `signature`, base64.

    The answer's `digest` is not what was signed (it covers the signature), and is not looked at.
    """
    if not _BASE64.fullmatch(signed):
        return False
    return signature.verify(public_key, k12(_bytes(WALLETCONNECT_PREFIX + text)), base64.b64decode(signed))


def verify_extension(public_key: bytes, text: str, signed: str) -> bool:
    """The browser extension's window.qubic.signMessage: over K12 of the text alone; `signed` is its `signatureHex`."""
    if not _HEX.fullmatch(signed):
        return False
    return signature.verify(public_key, k12(_bytes(text)), bytes.fromhex(signed))


def verify_manual(public_key: bytes, text: str, signed: str) -> bool:
    """A wallet's "Sign message", copied by hand: over the text's bytes, unhashed; `signed` is its `signature`.

    That is 130 letters A–P, hex with each digit shifted to a letter: the signature, then the first byte of its K12 as a checksum.
    """
    if not _SHIFTED_HEX.fullmatch(signed):
        return False
    *found, checksum = bytes.fromhex(signed.translate(_UNSHIFTED))
    if k12(bytes(found), 1)[0] != checksum:
        return False
    return signature.verify_message(public_key, _bytes(text), bytes(found))


def _bytes(text: str) -> bytes:
    # A lone surrogate has no UTF-8; it gets bytes that no wallet signs, rather than an error.
    return text.encode(errors="surrogatepass")


_BY_SCHEME: Final[dict[Scheme, Callable[[bytes, str, str], bool]]] = {
    Scheme.WALLETCONNECT: verify_walletconnect,
    Scheme.EXTENSION: verify_extension,
    Scheme.MANUAL: verify_manual,
}
