"""Passwords: argon2id through pwdlib, in a thread, the same time whether the account exists or not."""

from __future__ import annotations

import asyncio
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MEMORY_KIB: Final = 64 << 10
TIME_COST: Final = 3
LANES: Final = 1
"""One lane: the hash of one login must not take every core of a small machine."""

_DECOY: Final = "$argon2id$v=19$m=65536,t=3,p=1$qmrjQshfWXaY3sfaZeSMDA$jzj5wpJ8/QIVxKVmIRhBqzzFLqzjmZ4KgJAB+JRVt7Y"
"""The hash of a password that was thrown away, at the cost above: what an unknown account is checked against."""


class Passwords:
    """Hashes and verifies; each call takes tens of milliseconds and 64 MiB, so the edge bounds how many run at once."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, time_cost: int = TIME_COST) -> None:
        self._hasher = PasswordHash((Argon2Hasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=LANES),))

    async def hash(self, password: str) -> str:
        """The string to store for `password`."""
        return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one behind `stored`; None (no such account) costs the same time and is False."""
        good = await asyncio.to_thread(self._hasher.verify, password, _DECOY if stored is None else stored)
        return good and stored is not None
