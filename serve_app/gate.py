"""A gate before work that takes much of the machine: so many at once, so many waiting outside, the rest told to come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from qubix.kernel.errors import Unavailable

RETRY_AFTER_S: Final = 5


class Gate:
    """Lets `at_once` in. Whoever waits holds nothing, above all no connection to the database."""

    def __init__(self, *, at_once: int, waiting_max: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._waiting_max = waiting_max

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places. Raises: Unavailable when `waiting_max` wait already."""
        if self._waiting >= self._waiting_max:
            raise Unavailable("Too many are logging in at this moment.", next_step="Try again shortly.", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()
