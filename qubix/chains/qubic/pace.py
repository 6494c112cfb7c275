"""How much the client asks of the network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from qubix.kernel.clock import Clock


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """What the client allows itself and the network.

    Args: timeout_s, of one whole request; requests_per_s and burst, over all endpoints together; rounds_max, how often all endpoints are
        gone through; backoff_min_s and backoff_max_s, the pause between two rounds, doubled each time; answer_max_bytes, of one answer.
    """

    timeout_s: float = 5.0
    requests_per_s: float = 5.0
    burst: int = 1
    rounds_max: int = 4
    backoff_min_s: float = 0.5
    backoff_max_s: float = 30.0
    answer_max_bytes: int = 16 << 20


class Pace:
    """A token bucket, first come, first served: in any w seconds at most burst + rate × w requests.

    Args: rate_per_s, above 0; burst, at least 1.
    """

    def __init__(self, clock: Clock, rate_per_s: float, burst: int) -> None:
        if rate_per_s <= 0 or burst < 1:
            raise ValueError("a pace has a rate above 0 and a burst of at least 1")
        self._clock = clock
        self._interval_s = 1 / rate_per_s
        self._slack_s = (burst - 1) * self._interval_s
        self._full_at = clock.monotonic()
        """When the bucket is full again, plus one interval of it."""
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when the next request may go."""
        async with self._turn:
            due = self._full_at - self._slack_s
            while (now := self._clock.monotonic()) < due:
                await self._clock.sleep(due - now)
            self._full_at = max(now, self._full_at) + self._interval_s
