"""Rate limits per account and per address, kept in this process: two replicas admit twice as much, and a restart forgets."""

from __future__ import annotations

import enum
import math
import time
from typing import Final
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from qubix.kernel.errors import Limited
from qubix.settings import Settings

ADDRESS_FACTOR: Final = 10
"""Logged-in accounts behind one address share this many times one account's limit."""


class Bucket(enum.StrEnum):
    """What is counted apart."""

    LOGIN = "login"
    MONEY = "money"
    UPLOAD = "upload"
    SEARCH = "search"
    DEFAULT = "default"


class RateLimits:
    """Sliding windows of one minute."""

    def __init__(self, settings: Settings) -> None:
        self.enabled = settings.rate_limits
        self._per_minute = {
            Bucket.LOGIN: settings.login_per_minute,
            Bucket.MONEY: settings.money_per_minute,
            Bucket.UPLOAD: settings.upload_per_minute,
            Bucket.SEARCH: settings.search_per_minute,
            Bucket.DEFAULT: settings.default_per_minute,
        }
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def admit_account(self, bucket: Bucket, account: UUID | str, address: str) -> None:
        """Count a request of a known account, then of its address. Raises: Limited with the wait."""
        await self._admit(bucket, f"account/{account}", self._per_minute[bucket])
        await self._admit(bucket, f"address/{address}", self._per_minute[bucket] * ADDRESS_FACTOR)

    async def admit_address(self, bucket: Bucket, address: str) -> None:
        """Count a request of nobody in particular. Raises: Limited with the wait."""
        await self._admit(bucket, f"anonymous/{address}", self._per_minute[bucket])

    async def _admit(self, bucket: Bucket, who: str, per_minute: int) -> None:
        if not self.enabled:
            return
        item = RateLimitItemPerMinute(per_minute)
        if await self._limiter.hit(item, bucket, who):
            return
        stats = await self._limiter.get_window_stats(item, bucket, who)
        wait_s = max(1, math.ceil(stats.reset_time - time.time()))
        raise Limited(
            f"Too many requests of this kind: {per_minute} a minute are allowed.",
            next_step=f"Wait {wait_s} s.",
            retry_after_s=wait_s,
            limit_per_minute=per_minute,
            bucket=bucket.value,
        )
