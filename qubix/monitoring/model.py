"""What is asked of the database for Prometheus, and what was answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

Labels = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A gauge. Args: name, by Prometheus's conventions; help, what it counts and in which unit."""

    name: str
    help: str


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One statement, and the gauges that its rows set.

    Args: sql; labels, columns whose values tell the rows apart, each of a bounded set; figures, by the column with the value: a NULL sets
        nothing; given, parameters.
    """

    sql: str
    figures: Mapping[str, Figure]
    labels: Labels = ()
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Snapshot = Mapping[Figure, tuple[Labels, list[tuple[Labels, float]]]]
"""Per gauge: the names of its labels, and each row's label values with the value."""


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """One published event, with what the database knows of the attempt that it is about.

    Args: type, of the event; state and reason, of the job, as told; attempt, fault, end, how the attempt ended, None where none did; waited_s,
        from being funded (or lost) to running; recovered_s, from the last sign of life of the attempt that was lost to its successor running;
        settled_s, from the report of the end to the settlement's transaction.
    """

    position: int
    type: str
    state: str | None = None
    reason: str | None = None
    attempt: str | None = None
    fault: str | None = None
    end: str | None = None
    waited_s: float | None = None
    recovered_s: float | None = None
    settled_s: float | None = None


SNAPSHOT_S: Final = 15.0
"""Between two snapshots; more where one takes long."""
AUDIT_S: Final = 600.0
"""Between two audits; more where one takes long."""
LOAD_SHARE: Final = 20
"""Neither takes more than this part of the time, however large the database has become."""
NEWS_PAGE_MAX: Final = 2000
NEWS_PAGES_MAX: Final = 50
"""Pages of events in one step: 100 000 events in SNAPSHOT_S are more than the publisher numbers."""


def pause_s(took_s: float, least_s: float) -> float:
    """How long to leave the database alone after something that took so long."""
    return max(least_s, took_s * LOAD_SHARE)
