"""Device leases and quarantines in PostgreSQL; the exclusion constraint is the judge of every race."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.capacity.model import DeviceUse, Purpose
from qubix.postgres.metadata import declare_sql, metadata

device_leases = sa.Table(
    "device_leases",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("device_id", sa.BigInteger, sa.ForeignKey("devices.id", ondelete="CASCADE"), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("holder_id", pg.UUID(as_uuid=True), nullable=False),
    sa.Column("during", pg.TSTZRANGE, nullable=False),
    sa.CheckConstraint("purpose IN ('quote', 'job', 'reservation', 'cluster')", name="purpose"),
    sa.CheckConstraint("NOT isempty(during) AND NOT upper_inf(during) AND NOT lower_inf(during)", name="during"),
    pg.ExcludeConstraint(
        (sa.text("int8range(device_id, device_id, '[]')"), "&&"), ("during", "&&"), using="gist", name="device_leases_one_holder_excl"
    ),
    sa.Index("device_leases_holder_idx", "holder_id"),
)

device_quarantines = sa.Table(
    "device_quarantines",
    metadata,
    sa.Column("device_id", sa.BigInteger, sa.ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt_id", pg.UUID(as_uuid=True), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
)
declare_sql(__file__, "grants.sql", order=40)

# A device that another transaction is just taking is passed over: the exclusion constraint would wait for the end of
# that transaction. So who takes a device locks it first, by an advisory lock (every heartbeat writes the device's row). One that was
# taken a moment ago is skipped by ON CONFLICT; the caller counts and gives back if too few.
_UNTAKEN: Final = "pg_try_advisory_xact_lock(hashtextextended('device/' || d.id, 0))"
_TAKE: Final = sa.text(f"""
INSERT INTO device_leases (device_id, purpose, holder_id, during)
SELECT d.id, :purpose, :holder, tstzrange(clock_timestamp(), clock_timestamp() + make_interval(secs => :ttl_s))
FROM (
  SELECT d.id FROM devices d
  WHERE d.node_id = :node AND d.model = :model AND d.vram_bytes >= :vram_bytes AND d.usable
    AND NOT EXISTS (SELECT FROM device_quarantines q WHERE q.device_id = d.id)
    AND NOT EXISTS (SELECT FROM device_leases l WHERE l.device_id = d.id
                    AND l.during && tstzrange(clock_timestamp(), clock_timestamp() + make_interval(secs => :ttl_s)))
  ORDER BY d.id OFFSET 0) AS d  -- OFFSET: found and ordered before the first of them is locked
WHERE {_UNTAKEN} LIMIT :gpus
ON CONFLICT DO NOTHING RETURNING device_id
""")  # noqa: S608  (a constant)

_TAKE_THESE: Final = sa.text(f"""
INSERT INTO device_leases (device_id, purpose, holder_id, during)
SELECT d.id, :purpose, :holder, tstzrange(clock_timestamp(), clock_timestamp() + make_interval(secs => :ttl_s))
FROM (
  SELECT d AS id FROM unnest(cast(:devices AS bigint[])) AS d
  WHERE NOT EXISTS (SELECT FROM device_quarantines q WHERE q.device_id = d) ORDER BY d OFFSET 0) AS d
WHERE {_UNTAKEN}
ON CONFLICT DO NOTHING RETURNING device_id
""")  # noqa: S608  (a constant)

_QUEUE: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:place, 0))")

# A lease that ended before this moment no longer counts; it lies there until the sweeper removes it.
_USES: Final = sa.text("""
SELECT d.id, d.node_id, d.uuid, d.model, d.vram_bytes, l.purpose, l.holder_id, q.device_id IS NOT NULL AS quarantined
FROM devices d
LEFT JOIN device_leases l ON l.device_id = d.id AND l.during @> clock_timestamp()
LEFT JOIN device_quarantines q ON q.device_id = d.id
WHERE d.usable AND (cast(:nodes AS uuid[]) IS NULL OR d.node_id = ANY(:nodes))
ORDER BY d.node_id, d.id
""").bindparams(sa.bindparam("nodes", type_=pg.ARRAY(pg.UUID(as_uuid=True))))

_QUARANTINE: Final = sa.text("""
INSERT INTO device_quarantines (device_id, attempt_id, generation)
SELECT l.device_id, :attempt, n.generation FROM device_leases l JOIN devices d ON d.id = l.device_id JOIN nodes n ON n.id = d.node_id
WHERE l.holder_id = :attempt
ON CONFLICT (device_id) DO UPDATE SET attempt_id = excluded.attempt_id, generation = excluded.generation, since = clock_timestamp()
""")

# Only what a node says of its own attempts counts for its own devices.
_RELEASE_QUARANTINE: Final = sa.text("""
DELETE FROM device_quarantines q USING devices d, unnest(cast(:nodes AS uuid[]), cast(:seen AS bigint[])) AS s (node, generation)
WHERE d.id = q.device_id AND d.node_id = s.node AND q.generation < s.generation
  AND NOT EXISTS (SELECT FROM unnest(cast(:alive_on AS uuid[]), cast(:alive AS uuid[])) AS a (node, id) WHERE a.node = s.node AND a.id = q.attempt_id)
""")


class CapacityStore:
    """SQL of leases and quarantines over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def all_or_none(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A savepoint, and how to return to it: what was taken since is free at once, and so are the locks, for others to take."""
        async with self._connection.begin_nested() as savepoint:
            yield savepoint.rollback

    async def queue(self, node_id: UUID, model: str) -> None:
        """Wait for whoever is just taking several devices of this model: two would each get a part of what suffices for one."""
        await self._connection.execute(_QUEUE, {"place": f"devices/{node_id}/{model}"})

    async def take(
        self, purpose: Purpose, holder_id: UUID, *, node_id: UUID, model: str, vram_bytes: int, gpus: int, ttl_s: float
    ) -> list[int]:
        """Lease up to `gpus` free devices; returns the ids taken."""
        rows = await self._connection.execute(
            _TAKE,
            {
                "purpose": purpose.value,
                "holder": holder_id,
                "node": node_id,
                "model": model,
                "vram_bytes": vram_bytes,
                "gpus": gpus,
                "ttl_s": ttl_s,
            },
        )
        return [int(row.device_id) for row in rows]

    async def take_these(self, purpose: Purpose, holder_id: UUID, device_ids: Sequence[int], *, ttl_s: float) -> list[int]:
        """Lease exactly these devices where free; returns the ids taken."""
        rows = await self._connection.execute(
            _TAKE_THESE, {"purpose": purpose.value, "holder": holder_id, "devices": list(device_ids), "ttl_s": ttl_s}
        )
        return [int(row.device_id) for row in rows]

    async def drop(self, holder_id: UUID, device_ids: Sequence[int] | None = None) -> list[int]:
        """End the holder's leases (all, or those of the given devices); returns the freed device ids."""
        rows = await self._connection.execute(
            sa.text("""DELETE FROM device_leases WHERE holder_id = :holder
                       AND (cast(:devices AS bigint[]) IS NULL OR device_id = ANY(:devices)) RETURNING device_id""").bindparams(
                sa.bindparam("devices", type_=pg.ARRAY(sa.BigInteger))
            ),
            {"holder": holder_id, "devices": None if device_ids is None else list(device_ids)},
        )
        return [int(row.device_id) for row in rows]

    async def extend(self, holder_id: UUID, *, ttl_s: float) -> int:
        """Let the holder's running leases end `ttl_s` from now, never earlier than they did. Returns how many."""
        return (
            await self._connection.execute(
                sa.text("""UPDATE device_leases SET during = tstzrange(lower(during),
                               greatest(upper(during), clock_timestamp() + make_interval(secs => :ttl_s)))
                           WHERE holder_id = :holder AND during @> clock_timestamp()"""),
                {"holder": holder_id, "ttl_s": ttl_s},
            )
        ).rowcount

    async def drop_expired(self, *, most: int) -> list[UUID]:
        """Remove leases that are over; returns the nodes whose devices became free."""
        rows = await self._connection.execute(
            sa.text("""WITH gone AS (DELETE FROM device_leases WHERE id IN (SELECT id FROM device_leases WHERE upper(during) <= clock_timestamp()
                           ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED) RETURNING device_id)
                       SELECT DISTINCT d.node_id FROM gone JOIN devices d ON d.id = gone.device_id"""),
            {"most": most},
        )
        return [row.node_id for row in rows]

    async def uses(self, node_ids: Sequence[UUID] | None) -> list[DeviceUse]:
        """The devices of these nodes (None: of all), each with the lease and quarantine on it now."""
        rows = await self._connection.execute(_USES, {"nodes": None if node_ids is None else list(node_ids)})
        return [
            DeviceUse(r.id, r.node_id, r.uuid, r.model, r.vram_bytes, Purpose(r.purpose) if r.purpose else None, r.holder_id, r.quarantined)
            for r in rows
        ]

    async def held(self, holder_id: UUID) -> list[int]:
        """The devices that the holder leases now."""
        rows = await self._connection.scalars(
            sa.text("SELECT device_id FROM device_leases WHERE holder_id = :holder AND during @> clock_timestamp()"), {"holder": holder_id}
        )
        return [int(device_id) for device_id in rows]

    async def quarantine(self, attempt_id: UUID) -> int:
        """Quarantine the devices that the attempt holds, at their node's present generation. Returns how many."""
        return (await self._connection.execute(_QUARANTINE, {"attempt": attempt_id})).rowcount

    async def release_quarantines(self, statuses: Sequence[tuple[UUID, int, Sequence[UUID]]]) -> int:
        """End the quarantines that statuses (node, generation seen, attempts alive) clear. Returns how many."""
        alive = [(node, attempt) for node, _, attempts in statuses for attempt in attempts]
        values = {
            "nodes": [node for node, _, _ in statuses],
            "seen": [seen for _, seen, _ in statuses],
            "alive_on": [node for node, _ in alive],
            "alive": [attempt for _, attempt in alive],
        }
        return (await self._connection.execute(_RELEASE_QUARANTINE, values)).rowcount
