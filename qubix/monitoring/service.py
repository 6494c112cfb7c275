"""Reads the platform's figures now and then, for the collector to show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from qubix.kernel.clock import Clock
from qubix.monitoring.collector import PlatformCollector
from qubix.monitoring.model import NEWS_PAGE_MAX, NEWS_PAGES_MAX

if TYPE_CHECKING:
    from qubix.monitoring.store import MonitoringStore


class MonitoringService:
    """Args: opened, begins a transaction of its own for each reading; collector, which shows what was read; clock."""

    def __init__(
        self, opened: Callable[[], AbstractAsyncContextManager[MonitoringStore]], collector: PlatformCollector, clock: Clock
    ) -> None:
        self._opened = opened
        self._collector = collector
        self._clock = clock
        self._position: int | None = None

    async def measure(self) -> None:
        """Take a snapshot of every gauge, and count what was published since the last one (at first: from now on)."""
        began = self._clock.monotonic()
        async with self._opened() as store:
            snapshot = await store.snapshot()
        await self._hear()
        self._collector.take(snapshot, self._clock.monotonic() - began)

    async def audit(self) -> None:
        """Check every rule of the ledger."""
        began = self._clock.monotonic()
        async with self._opened() as store:
            findings = await store.audit()
        self._collector.take_audit(findings, self._clock.monotonic() - began)

    async def _hear(self) -> None:
        if self._position is None:
            async with self._opened() as store:
                self._position = await store.position()
            return
        for _ in range(NEWS_PAGES_MAX):
            async with self._opened() as store:
                news = await store.news(self._position)
            if news:
                self._position = news[-1].position
                self._collector.hear(news)
            if len(news) < NEWS_PAGE_MAX:
                return
