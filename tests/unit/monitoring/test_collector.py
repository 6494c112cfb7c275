"""The platform's figures as a scrape sees them: what is old looks old."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from qubix.monitoring.collector import PlatformCollector
from qubix.monitoring.model import LOAD_SHARE, NEWS_PAGE_MAX, SNAPSHOT_S, Figure, Labels, News, pause_s
from qubix.monitoring.service import MonitoringService

JOBS = Figure("qubix_jobs", "Jobs.")


class HandClock:
    """Time that a test advances."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> dt.datetime:
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, delay_s: float) -> None:
        self.at += delay_s


class Database:
    """What the store reads, in memory."""

    def __init__(self) -> None:
        self.events: list[News] = []
        self.away = False

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Database]:
        if self.away:
            raise ConnectionError("away")
        yield self

    async def snapshot(self) -> dict[Figure, tuple[Labels, list[tuple[Labels, float]]]]:
        return {JOBS: (("state",), [(("PENDING",), 3.0)])}

    async def audit(self) -> list[tuple[str, int]]:
        return [("nothing is lost", 0), ("nothing is minted", 2)]

    async def position(self) -> int:
        return len(self.events)

    async def news(self, after: int) -> list[News]:
        return self.events[after : after + NEWS_PAGE_MAX]


class World:
    def __init__(self) -> None:
        self.registry, self.clock, self.database = CollectorRegistry(), HandClock(), Database()
        collector = PlatformCollector(self.registry, self.clock, Path("/"))
        self.service = MonitoringService(self.database.opened, collector, self.clock)  # type: ignore[arg-type]

    def happened(self, *types: str, recovered_s: float | None = None) -> None:
        for kind in types:
            self.database.events.append(News(len(self.database.events) + 1, kind, "COMPLETED", "succeeded", recovered_s=recovered_s))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def test_a_snapshot_keeps_its_values_and_shows_its_age_while_the_database_is_away() -> None:
    world = World()
    await world.service.measure()
    world.database.away = True
    world.clock.at += 90
    with contextlib.suppress(ConnectionError):
        await world.service.measure()
    assert world.value("qubix_jobs", state="PENDING") == 3
    assert world.value("qubix_snapshot_age_seconds") == 90


async def test_before_the_first_snapshot_and_audit_the_age_is_the_processs_own() -> None:
    world = World()
    world.clock.at += 50
    assert world.value("qubix_snapshot_age_seconds") == world.value("qubix_audit_age_seconds") == 50
    assert world.value("qubix_jobs", state="PENDING") is None


async def test_an_audit_shows_each_rule_and_when_it_was_asked() -> None:
    world = World()
    await world.service.audit()
    world.clock.at += 7
    assert world.value("qubix_audit_findings", rule="nothing is lost") == 0
    assert world.value("qubix_audit_findings", rule="nothing is minted") == 2
    assert world.value("qubix_audit_age_seconds") == 7


async def test_what_happened_before_the_process_began_is_not_counted_and_all_later_news_once() -> None:
    world = World()
    world.happened("JOB_COMPLETED")
    await world.service.measure()
    world.happened(*["JOB_COMPLETED"] * (2 * NEWS_PAGE_MAX + 1))
    world.happened("JOB_STATUS_CHANGED", recovered_s=12.0)
    for _ in range(3):
        await world.service.measure()
    assert world.value("qubix_jobs_ended_total", state="COMPLETED", reason="succeeded") == 2 * NEWS_PAGE_MAX + 1
    assert world.value("qubix_events_published_total", type="JOB_STATUS_CHANGED") == 1
    assert world.value("qubix_recovery_seconds_sum") == 12


def test_the_disk_of_the_data_folder_is_told() -> None:
    world = World()
    assert (world.value("qubix_disk_bytes") or 0) >= (world.value("qubix_disk_free_bytes") or -1) > 0
    assert b"# TYPE qubix_snapshot_age_seconds gauge" in generate_latest(world.registry)


def test_a_question_that_takes_long_is_asked_more_rarely() -> None:
    assert pause_s(0.01, SNAPSHOT_S) == SNAPSHOT_S
    assert pause_s(4.0, SNAPSHOT_S) == 4.0 * LOAD_SHARE
