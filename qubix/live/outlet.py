"""What waits to be sent to one connected client: bounded, and never able to slow anybody else."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from typing import Final

DURABLE_MAX: Final = 1000
"""Events that may wait for one client; one more and the client must reconnect and resume."""
VOLATILE_MAX: Final = 256
"""Volatile messages that may wait; beyond, only the latest value of each subject is kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A message on its way; `subject` names the value that a newer message replaces, None for what may not be dropped."""

    text: str
    subject: str | None = None


class Outlet:
    """The queue of one client. Single event loop; `take` has one caller."""

    def __init__(self, *, durable_max: int = DURABLE_MAX, volatile_max: int = VOLATILE_MAX) -> None:
        self._durable_max = durable_max
        self._volatile_max = volatile_max
        self._durable: collections.deque[str] = collections.deque()
        self._volatile: collections.deque[Waiting] = collections.deque()
        self._something = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflowed = False
        """True once an event had to be refused: the client has a gap and must resume from its last position."""
        self.dropped = 0
        """Volatile messages that newer values replaced."""

    def offer_durable(self, text: str) -> None:
        """Queue a message that may not be lost; past the bound the outlet is marked overflowed instead."""
        if len(self._durable) >= self._durable_max:
            self.overflowed = True
        else:
            self._durable.append(text)
            self._drained.clear()
        self._something.set()

    def offer_volatile(self, text: str, subject: str) -> None:
        """Queue a message that a newer one of the same subject may replace when the client is slow."""
        if len(self._volatile) >= self._volatile_max:
            self._collapse()
        self._volatile.append(Waiting(text, subject))
        self._something.set()

    def _collapse(self) -> None:
        latest = {waiting.subject: waiting for waiting in self._volatile}
        kept = list(latest.values())[-self._volatile_max // 2 :]
        self.dropped += len(self._volatile) - len(kept)
        self._volatile = collections.deque(kept)

    async def take(self) -> list[str]:
        """Wait for messages and take all of them, events first."""
        await self._something.wait()
        self._something.clear()
        texts = [*self._durable, *(waiting.text for waiting in self._volatile)]
        self._durable.clear()
        self._volatile.clear()
        self._drained.set()
        return texts

    async def drained(self) -> None:
        """Wait until no event is queued: how a catch-up paces itself."""
        await self._drained.wait()
