"""Retry and breaker around transactions: a database that is away is not hammered, and its clients hear of it at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qubix.kernel.clock import Clock
from qubix.kernel.errors import QubixError, Unavailable
from serve_app.errors import is_database_trouble, is_passing_conflict

T = TypeVar("T")
FAILURES_MAX: Final = 5
OPEN_S: Final = 2.0
ATTEMPTS_MAX: Final = 3
PAUSE_S: Final = 0.05


class Breaker:
    """Opens after FAILURES_MAX troubled transactions in a row, for OPEN_S seconds; then one at a time may try."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are refused now."""
        return self._open_until > self._clock.monotonic()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run one whole transaction; again, with back-off, when it lost a race.

        Only a lost race is run again: the database then says that nothing of the transaction remains. A lost connection
        may have lost its answer after the commit; the client repeats such a request under its Idempotency-Key.
        Raises: Unavailable while open.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self._check()
            try:
                result = await work()
            except QubixError:
                self._close()
                raise
            except Exception as error:
                if is_passing_conflict(error) and attempt < ATTEMPTS_MAX:
                    await asyncio.sleep(PAUSE_S * attempt * random.uniform(0.5, 1.5))  # noqa: S311  (jitter)
                    continue
                if is_database_trouble(error):
                    self._count()
                raise
            self._close()
            return result
        raise AssertionError("the last attempt returns or raises")

    def _check(self) -> None:
        left = self._open_until - self._clock.monotonic()
        if left > 0:
            raise Unavailable("The database is not answering.", next_step="Try again shortly.", retry_after_s=round(left, 1))
        if self._failures >= FAILURES_MAX:
            self._open_until = self._clock.monotonic() + OPEN_S

    def _close(self) -> None:
        """The database answered."""
        self._failures, self._open_until = 0, 0.0

    def _count(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._open_until = self._clock.monotonic() + OPEN_S
