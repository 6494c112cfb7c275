"""Prometheus metrics of this replica; each replica counts for itself and the scraper adds up."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Measurements:
    """What the web layer counts. One registry per application, so tests may make several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("qubix_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "qubix_http_request_seconds",
            "Time from the request's head to the end of its answer.",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.sockets = Gauge("qubix_websockets", "Open WebSockets.", ["kind"], registry=self.registry)
        self.frames = Counter("qubix_agent_frames", "Frames received from agents.", ["t"], registry=self.registry)
        self._jobs = Gauge("qubix_jobs", "Jobs by state, as the database says now.", ["state"], registry=self.registry)

    def request(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count one answered request; `route` is the template, never the path."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(took_s)

    def jobs(self, by_state: dict[str, int]) -> None:
        """Set the gauge of jobs."""
        self._jobs.clear()
        for state, count in by_state.items():
            self._jobs.labels(state).set(count)

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
