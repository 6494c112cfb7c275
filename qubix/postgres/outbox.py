"""The outbox: durable events, written in the transaction that causes them, numbered afterwards without gaps.

A bigserial is taken at insert and seen at commit, so a reader by serial skips what commits late (a trial lost 644 of
1 200). The publisher gives `position` to committed rows only, one publisher at a time, under an advisory lock that an
earlier statement of the same transaction took: the numbering statement's snapshot then sees all earlier numbers.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.events import Event
from qubix.postgres.metadata import declare_sql, metadata

PUBLISH_BATCH_MAX: Final = 1000
RETENTION_DAYS: Final = 7
_PUBLISHER_LOCK: Final = 0x0B0C
_READ_PAGE_MAX: Final = 1000

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("position", sa.BigInteger),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("topics", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("subject_id", pg.UUID(as_uuid=True), nullable=False),
    sa.Column("payload", pg.JSONB, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Index("events_position_key", "position", unique=True, postgresql_where=sa.text("position IS NOT NULL")),
    sa.Index("events_key_key", "key", unique=True, postgresql_where=sa.text("key IS NOT NULL")),
    sa.Index("events_unpublished_idx", "id", postgresql_where=sa.text("position IS NULL")),
)
declare_sql(__file__, "outbox.sql", order=5)

# The last position must come from a statement after the lock was taken; numbers follow insertion order within a batch.
_NUMBER: Final = sa.text("""
WITH fresh AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM (SELECT id FROM events WHERE position IS NULL ORDER BY id LIMIT :most) f),
     last AS (SELECT coalesce(max(position), 0) AS position FROM events WHERE position IS NOT NULL)
UPDATE events e SET position = last.position + fresh.n FROM fresh, last WHERE e.id = fresh.id
""")
_ADD: Final = sa.text("""
INSERT INTO events (type, topics, subject_id, payload, key) VALUES (:type, :topics, :subject_id, cast(:payload AS jsonb), :key)
ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
""").bindparams(sa.bindparam("topics", type_=pg.ARRAY(sa.Text)))
_READ: Final = sa.text("""
SELECT position, type, topics, subject_id, payload, created_at FROM events
WHERE position > :after AND topics && cast(:topics AS text[]) ORDER BY position LIMIT :most
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """An event with its place in the one order that all readers see."""

    position: int
    type: str
    topics: tuple[str, ...]
    subject_id: UUID
    payload: dict[str, Any]
    created_at: dt.datetime


class Outbox:
    """Events of one transaction; they are inserted just before its commit, after every row lock was taken but those of offers (market.sql)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Tell this once the transaction commits."""
        self._events.append(event)

    async def write(self) -> bool:
        """Insert what was added; Scope calls this before the commit. Returns whether there was anything."""
        if not self._events:
            return False
        rows = [
            {
                "type": event.type.value,
                "topics": list(event.topics),
                "subject_id": event.subject_id,
                "payload": json.dumps(event.payload, default=str),
                "key": event.key,
            }
            for event in self._events
        ]
        self._events.clear()
        await self._connection.execute(_ADD, rows)
        return True


async def publish(connection: AsyncConnection) -> int:
    """Number up to PUBLISH_BATCH_MAX committed events. Returns how many; 0 also when another publisher is at it."""
    locked = await connection.scalar(sa.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _PUBLISHER_LOCK})
    if not locked:
        return 0
    return (await connection.execute(_NUMBER, {"most": PUBLISH_BATCH_MAX})).rowcount


async def read(connection: AsyncConnection, topics: list[str], *, after: int, most: int = _READ_PAGE_MAX) -> list[Published]:
    """Published events on any of `topics` behind position `after`, in order, at most `most`."""
    rows = await connection.execute(_READ, {"after": after, "topics": topics, "most": min(most, _READ_PAGE_MAX)})
    return [Published(r.position, r.type, tuple(r.topics), r.subject_id, r.payload, r.created_at) for r in rows]


async def position(connection: AsyncConnection) -> int:
    """The last position given; read it BEFORE the rows of a snapshot."""
    return int(await connection.scalar(sa.text("SELECT coalesce(max(position), 0) FROM events WHERE position IS NOT NULL")) or 0)


async def oldest(connection: AsyncConnection) -> int:
    """The oldest position still kept, 0 when none is; a reader behind it must resync."""
    return int(await connection.scalar(sa.text("SELECT coalesce(min(position), 0) FROM events WHERE position IS NOT NULL")) or 0)


async def forget(connection: AsyncConnection) -> int:
    """Drop events past retention, except the newest, whose number the next one needs. Returns how many."""
    return (
        await connection.execute(
            sa.text("""DELETE FROM events WHERE id IN (SELECT id FROM events WHERE position < (SELECT max(position) FROM events)
                       AND created_at < now() - make_interval(days => :days) LIMIT 10000)"""),
            {"days": RETENTION_DAYS},
        )
    ).rowcount
