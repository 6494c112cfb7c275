"""Rate limits per account and per address, kept in this process: two replicas admit twice as much, and a restart forgets."""

from __future__ import annotations

import asyncio
import collections
import enum
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from qubix.kernel.errors import Limited
from qubix.settings import Settings

ADDRESS_FACTOR: Final = 10
"""Logged-in accounts behind one address share this many times one account's limit."""
DELAY_STEP_S: Final = 0.25
DELAY_MAX_S: Final = 5.0
KNOWN_MAX: Final = 10_000
_FAILURES: Final = RateLimitItemPerMinute(10_000)
"""Never refused: it only counts the failed logins of a minute."""


class Bucket(enum.StrEnum):
    """What is counted apart."""

    LOGIN = "login"
    MONEY = "money"
    UPLOAD = "upload"
    SEARCH = "search"
    DEFAULT = "default"


class RateLimits:
    """Sliding windows of one minute. Args: sleep, waits so many seconds."""

    def __init__(self, settings: Settings, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self.enabled = settings.rate_limits
        self._per_minute = {
            Bucket.LOGIN: settings.login_per_minute,
            Bucket.MONEY: settings.money_per_minute,
            Bucket.UPLOAD: settings.upload_per_minute,
            Bucket.SEARCH: settings.search_per_minute,
            Bucket.DEFAULT: settings.default_per_minute,
        }
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._refused_hellos = RateLimitItemPerMinute(settings.login_per_minute * ADDRESS_FACTOR)
        self._sleep = sleep
        self._known: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()

    async def admit_account(self, bucket: Bucket, account: UUID | str, address: str) -> None:
        """Count a request of a known account, then of its address. Raises: Limited with the wait."""
        await self._admit(bucket, f"account/{account}", self._per_minute[bucket])
        await self._admit(bucket, f"address/{address}", self._per_minute[bucket] * ADDRESS_FACTOR)

    async def admit_address(self, bucket: Bucket, address: str) -> None:
        """Count a request of nobody in particular. Raises: Limited with the wait."""
        await self._admit(bucket, f"anonymous/{address}", self._per_minute[bucket])

    async def admit_login(self, email: str, address: str) -> None:
        """Count an attempt to log in and, while the password is being guessed, let it wait. Raises: Limited with the wait.

        What others fail neither refuses nor delays an address from which this account logged in before, and only delays any
        other: whoever knows an account's e-mail address cannot lock its owner out.
        """
        if not self.enabled:
            return
        if (email, address) not in self._known:
            await self._admit(Bucket.LOGIN, f"login/{email}/{address}", self._per_minute[Bucket.LOGIN])
        await self._admit(Bucket.LOGIN, f"address/{address}", self._per_minute[Bucket.LOGIN] * ADDRESS_FACTOR)
        if delay_s := await self._login_delay_s(email, address):
            await self._sleep(delay_s)

    async def note_login(self, email: str, address: str, *, good: bool) -> None:
        """Remember how an attempt ended."""
        if good:
            self._know(email, address)
        elif self.enabled:
            await self._limiter.hit(_FAILURES, "failed login", email)
            await self._limiter.hit(_FAILURES, "failed login", email, address)

    def _know(self, who: str, address: str) -> None:
        self._known[who, address] = None
        self._known.move_to_end((who, address))
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    async def is_doubtful(self, node: UUID, address: str) -> bool:
        """Whether a machine's greeting has to wait behind others: too many from its address were refused, and it was never good from there.

        Not refused: many machines share an address, behind a router or Serve's own proxy, and a stranger there could keep all of them out.
        """
        if not self.enabled or (str(node), address) in self._known:
            return False
        return not await self._limiter.test(self._refused_hellos, "refused hello", address)

    async def note_hello(self, node: UUID | None, address: str, *, good: bool) -> None:
        """Remember how a greeting ended. Args: node, None where none was named."""
        if good:
            self._know(str(node), address)
        elif self.enabled:
            await self._limiter.hit(self._refused_hellos, "refused hello", address)

    async def _login_delay_s(self, email: str, address: str) -> float:
        whose = (email, address) if (email, address) in self._known else (email,)
        stats = await self._limiter.get_window_stats(_FAILURES, "failed login", *whose)
        failures = _FAILURES.amount - stats.remaining
        return max(0.0, min(DELAY_MAX_S, DELAY_STEP_S * (failures - self._per_minute[Bucket.LOGIN])))

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
