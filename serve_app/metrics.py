"""What one replica counts of itself, for Prometheus; the platform's own figures are the controller's (qubix.monitoring)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy.ext.asyncio import AsyncEngine

from qubix.exporter import make_registry
from qubix.postgres.measures import PoolCollector
from serve_app.breaker import Breaker

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PROCESS: Final = "web"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measurements:
    """What the web layer counts. One registry per application, so tests may make several."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self._requests = Counter("qubix_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "qubix_http_request_seconds",
            "Time from the request's head to the end of its answer.",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self._bytes = Counter("qubix_http_request_bytes", "Bytes of requests' bodies: uploads, results.", ["route"], registry=self.registry)
        self.in_flight = Gauge("qubix_http_requests_in_flight", "Requests that are being answered.", registry=self.registry)
        self.sockets = Gauge("qubix_websockets", "Open WebSockets.", ["kind"], registry=self.registry)
        self.frames = Counter("qubix_agent_frames", "Frames received from agents.", ["t"], registry=self.registry)
        for kind in ("agent", "client"):
            self.sockets.labels(kind)

    def watch(self, engine: AsyncEngine, breaker: Breaker) -> None:
        """Show the pool of connections and the breaker, as they are when asked."""
        self.registry.register(PoolCollector(engine))
        Gauge(
            "qubix_breaker_open", "1 while requests are refused because the database does not answer.", registry=self.registry
        ).set_function(lambda: float(breaker.is_open))

    def request(self, method: str, route: str, status: int, took_s: float, body_bytes: int = 0) -> None:
        """Count one answered request; `route` is the template, never the path."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(took_s)
        if body_bytes:
            self._bytes.labels(route).inc(body_bytes)

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
