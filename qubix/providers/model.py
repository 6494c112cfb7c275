"""Providers, nodes and devices as values; heartbeats, heat, reputation and availability as pure decisions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from qubix.kernel.errors import Conflict, Invalid, Unauthenticated
from qubix.kernel.ids import NodeId, ProviderId, UserId

HEARTBEAT_S: Final = 30
STALE_AFTER_S: Final = 60
"""Metrics older than this: the node is shown as stale and is not rentable."""
OFFLINE_AFTER_S: Final = 90
"""Three missed heartbeats."""
JOIN_TOKEN_TTL_S: Final = 30 * 60
JOIN_TOKENS_OPEN_MAX: Final = 50
NODES_PER_PROVIDER_MAX: Final = 2000
METRICS_RETENTION_DAYS: Final = 30
WINDOWS_MAX: Final = 50
MINUTES_PER_DAY: Final = 24 * 60
NO_RAY: Final = "none"
"""The Ray version that an agent without Ray states."""

_REGION: Final = re.compile(r"[a-z0-9\-]{1,40}")


class NodeState(enum.StrEnum):
    """Where a node stands, as stored."""

    REGISTERING = "registering"
    ONLINE = "online"
    OFFLINE = "offline"
    LEFT = "left"


class Presence(enum.StrEnum):
    """What the age of a node's last status says."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class Heat(enum.StrEnum):
    """What a device's temperature asks for."""

    NORMAL = "normal"
    HOT = "hot"
    """No new work."""
    OVER_LIMIT = "over_limit"
    """A running attempt checkpoints and moves."""
    CRITICAL = "critical"
    """The node is drained."""


MOVING: Final = frozenset({Heat.OVER_LIMIT, Heat.CRITICAL})
"""The heat at which an attempt leaves its device."""

HOT_C: Final = 85.0
LIMIT_C: Final = 92.0
CRITICAL_C: Final = 100.0
COOL_BY_C: Final = 5.0
"""A hot device takes work again only this much below the line that it crossed, so it does not flap."""


class WorkerTaken(Conflict):
    """The worker id belongs to another owner."""

    code = "worker_id_taken"


class TokenRefused(Unauthenticated):
    """The join token is unknown, used up or too old."""

    code = "join_token_refused"


class VersionMismatch(Conflict):
    """The node runs another release than the server."""

    code = "version_mismatch"


class NodeBusy(Conflict):
    """Devices of the node are leased."""

    code = "node_busy"


@dataclasses.dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token, shown once, and the versions that the node which uses it must have."""

    token: str
    expires_at: dt.datetime
    qubix_version: str
    ray_version: str
    python_version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A weekly span in which a node may be rented, in UTC. A node without windows is always open.

    Args: weekday, 0 is Monday; opens and closes in minutes of that day, opens < closes <= 1440.
    """

    weekday: int
    opens: int
    closes: int

    def __post_init__(self) -> None:
        if not (0 <= self.weekday <= 6 and 0 <= self.opens < self.closes <= MINUTES_PER_DAY):
            raise Invalid(
                "An availability window has a weekday from 0 (Monday) to 6, and opens before it closes, in minutes of the day (0 to 1440).",
                next_step="Split a window that passes midnight into two.",
                field="availability",
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Reputation:
    """How a provider's attempts ended; recomputable from the attempts themselves."""

    ended: int
    faulted: int

    @property
    def share(self) -> float | None:
        """The share that ended without the provider's fault; None where nothing has ended yet."""
        return None if self.ended == 0 else (self.ended - self.faulted) / self.ended


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One GPU of a node; `sample` is its latest measurement with its time."""

    id: int
    uuid: str
    model: str
    vram_bytes: int
    detected_by: str
    verified: bool
    overheating: bool
    sample: dict[str, Any] | None
    sampled_at: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A provider machine."""

    id: NodeId
    provider_id: ProviderId
    worker_id: str
    name: str
    region: str
    state: NodeState
    presence: Presence
    paused: bool
    draining: bool
    qubix_version: str
    ray_version: str
    cpu_model: str
    cpu_cores: int
    ram_bytes: int
    disk_bytes: int
    sandbox: dict[str, str]
    last_status_at: dt.datetime | None
    metrics_at: dt.datetime | None
    availability: tuple[Window, ...]
    devices: tuple[Device, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """A provider as anybody may see it."""

    id: ProviderId
    owner_id: UserId
    name: str
    reputation: Reputation
    created_at: dt.datetime
    nodes: tuple[Node, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """The answer to a join."""

    provider_id: ProviderId
    node_id: NodeId
    created: bool


def presence(status_age_s: float | None, *, metrics_age_s: float | None) -> Presence:
    """What the age of a node's last status and of its last metrics say, by the database's clock, in seconds.

    Returns: OFFLINE after three missed heartbeats (90 s without a status; None is never); STALE where the metrics, or the
        status, are older than 60 s; else ONLINE.
    """
    if status_age_s is None or status_age_s > OFFLINE_AFTER_S:
        return Presence.OFFLINE
    if status_age_s > STALE_AFTER_S or metrics_age_s is None or metrics_age_s > STALE_AFTER_S:
        return Presence.STALE
    return Presence.ONLINE


def heat(temperature_c: float | None, *, before: Heat = Heat.NORMAL) -> Heat:
    """What a temperature asks for, with hysteresis: a line once crossed holds until COOL_BY_C below it.

    Args: temperature_c, None where the source cannot tell (then nothing changes); before, the last answer.
    """
    if temperature_c is None:
        return before
    order = list(Heat)
    lines = ((Heat.CRITICAL, CRITICAL_C), (Heat.OVER_LIMIT, LIMIT_C), (Heat.HOT, HOT_C))
    for level, line_c in lines:
        held = order.index(before) >= order.index(level)
        if temperature_c >= (line_c - COOL_BY_C if held else line_c):
            return level
    return Heat.NORMAL


def check_region(region: str) -> str:
    """A region name. Raises: Invalid."""
    if not _REGION.fullmatch(region):
        raise Invalid("A region has 1 to 40 of a-z, 0-9 and '-'.", next_step="For example: eu-west, us, local.", field="region")
    return region


def check_versions(node_qubix: str, node_ray: str, *, server_qubix: str, server_ray: str, qubix_before: str | None = None) -> None:
    """Refuse a node whose release differs from the server's: agent code is imported on the node, not shipped.

    Args: qubix_before, the one other release that will do; None: there is none. Raises: VersionMismatch, with both versions. A node without Ray states `none`.
    """
    for what, theirs, ours in (("Qubix", node_qubix, server_qubix), ("Ray", node_ray, server_ray)):
        if theirs not in (ours, NO_RAY if what == "Ray" else qubix_before):
            package = "qubix" if what == "Qubix" else "ray"
            raise VersionMismatch(
                f"This node has {what} {theirs}, the server has {what} {ours}.",
                next_step=f"Install {package} {ours} on the node and join again.",
                node_version=theirs,
                server_version=ours,
            )


def is_open(windows: Sequence[Window], at: dt.datetime) -> bool:
    """Whether a node with these windows may be rented at `at` (aware). No windows: always."""
    at = at.astimezone(dt.UTC)
    minute = at.hour * 60 + at.minute
    return not windows or any(w.weekday == at.weekday() and w.opens <= minute < w.closes for w in windows)


def check_windows(rows: Sequence[dict[str, int]]) -> tuple[Window, ...]:
    """Availability windows from a request: `{"weekday": 0, "opens": 540, "closes": 1020}` each. Raises: Invalid."""
    if len(rows) > WINDOWS_MAX:
        raise Invalid(f"At most {WINDOWS_MAX} availability windows.", next_step="Join neighbouring windows.", field="availability")
    try:
        return tuple(Window(int(row["weekday"]), int(row["opens"]), int(row["closes"])) for row in rows)
    except (KeyError, TypeError, ValueError):
        raise Invalid(
            "An availability window has weekday, opens and closes.", next_step="See the documentation.", field="availability"
        ) from None


def node_subject(node_id: UUID, provider_id: UUID) -> tuple[str, ...]:
    """The topics that carry news of a node."""
    return ("marketplace", f"provider:{provider_id}")
