"""What one process's pool of connections says of itself, when it is asked."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool


class PoolCollector(Collector):
    """Args: engine, whose pool is measured."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """In use, idle, and the most that may be open."""
        pool = self._engine.sync_engine.pool
        if not isinstance(pool, QueuePool):
            return
        connections = GaugeMetricFamily("qubix_database_pool_connections", "Connections of this process's pool.", labels=["state"])
        connections.add_metric(["in_use"], pool.checkedout())
        connections.add_metric(["idle"], pool.checkedin())
        yield connections
        limit = GaugeMetricFamily("qubix_database_pool_limit", "The most connections that this process opens; who needs one more waits.")
        limit.add_metric([], pool.size() + pool._max_overflow)
        yield limit
