"""The platform's figures in a Prometheus registry: the last snapshot with its age, the last audit with its own, and what events told."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from qubix.kernel.clock import Clock
from qubix.monitoring.model import Labels, News, Snapshot

_RECOVERY_S: Final = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 35.0, 60.0, 120.0, 300.0, 900.0)
_WAIT_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_SETTLEMENT_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Taken:
    """Something that was asked. Args: at, the monotonic clock; took_s."""

    at: float
    took_s: float


class PlatformCollector(Collector):
    """What the database says, as the process that leads last read it.

    A scrape asks nothing: it shows the last snapshot and how old that is, so a database that is away shows as age, not as zeros.

    Args: registry, where it registers itself and its counters; clock; data_dir, whose disk is measured.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock, data_dir: Path) -> None:
        self._clock = clock
        self._data_dir = data_dir
        self._born = clock.monotonic()
        self._snapshot: Snapshot = {}
        self._findings: tuple[tuple[str, int], ...] = ()
        self._seen: _Taken | None = None
        self._audited: _Taken | None = None
        self._events = Counter("qubix_events_published", "Events given a position in the outbox.", ["type"], registry=registry)
        self._jobs = Counter("qubix_jobs_ended", "Jobs that ended.", ["state", "reason"], registry=registry)
        self._attempts = Counter("qubix_attempts_ended", "Attempts that ended.", ["state", "fault", "reason"], registry=registry)
        self._wait = Histogram("qubix_job_wait_seconds", "From funded, or lost, to running.", buckets=_WAIT_S, registry=registry)
        self._recovery = Histogram(
            "qubix_recovery_seconds",
            "From the last sign of life of an attempt that was lost to its successor running.",
            buckets=_RECOVERY_S,
            registry=registry,
        )
        self._settlement = Histogram(
            "qubix_settlement_seconds", "From the report of an attempt's end to its settlement.", buckets=_SETTLEMENT_S, registry=registry
        )
        registry.register(self)

    def take(self, snapshot: Snapshot, took_s: float) -> None:
        """Show this snapshot from now on."""
        self._snapshot, self._seen = snapshot, _Taken(self._clock.monotonic(), took_s)

    def take_audit(self, findings: Iterable[tuple[str, int]], took_s: float) -> None:
        """Show what this audit found from now on: every rule, with the rows that break it."""
        self._findings, self._audited = tuple(findings), _Taken(self._clock.monotonic(), took_s)

    def hear(self, news: Iterable[News]) -> None:
        """Count what happened."""
        for one in news:
            self._events.labels(one.type).inc()
            if one.type == "JOB_COMPLETED":
                self._jobs.labels(one.state or "", one.reason or "").inc()
            if one.attempt is not None:
                self._attempts.labels(one.attempt, one.fault or "none", one.end or "").inc()
            for histogram, value in ((self._wait, one.waited_s), (self._recovery, one.recovered_s), (self._settlement, one.settled_s)):
                if value is not None:
                    histogram.observe(max(0.0, value))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything, without a question to the database."""
        for figure, (names, rows) in self._snapshot.items():
            yield _gauge(figure.name, figure.help, names, rows)
        rules = [((rule,), float(n)) for rule, n in self._findings]
        yield _gauge("qubix_audit_findings", "Rows that break a rule of the ledger's audit.", ("rule",), rules)
        for what, taken in (("snapshot", self._seen), ("audit", self._audited)):
            since = self._born if taken is None else taken.at
            yield _alone(
                f"qubix_{what}_age_seconds", f"Age of the {what}; before the first, of the process.", self._clock.monotonic() - since
            )
            if taken is not None:
                yield _alone(f"qubix_{what}_seconds", f"How long the {what} took.", taken.took_s)
        yield from self._disk()

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            return
        yield _alone("qubix_disk_bytes", "Size of the disk with the data folder.", usage.total)
        yield _alone("qubix_disk_free_bytes", "What is free on it.", usage.free)


def _gauge(name: str, meaning: str, names: Labels, rows: Iterable[tuple[Labels, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=names)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _alone(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)
