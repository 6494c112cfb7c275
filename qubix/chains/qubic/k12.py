"""KangarooTwelve (KT128 of RFC 9861), the only hash that Qubic uses."""

from __future__ import annotations

from Crypto.Hash import KangarooTwelve


def k12(message: bytes, length: int = 32) -> bytes:
    """The first `length` bytes of the hash; it is extendable, so a shorter answer is a prefix of a longer one."""
    return bytes(KangarooTwelve.new(data=message).read(length))
