"""SQL of providers, nodes and devices over one transaction's connection."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Device, NodeFacts, NodeSample
from qubix.kernel.ids import new_id
from qubix.providers import tables

__all__ = ["ProvidersStore", "tables"]

_UUIDS: Final = pg.ARRAY(pg.UUID(as_uuid=True))

# The caller may have lost the answer to its first try, so a token that this very node spent is found as well.
_TOKEN: Final = sa.text("""
SELECT t.id, t.provider_id, t.used_at, t.expires_at < now() AS expired, t.by_label, n.worker_id, n.public_key, n.state
FROM join_tokens t LEFT JOIN nodes n ON n.id = t.node_id WHERE t.token_hash = :hash FOR UPDATE OF t
""")
_ADD_NODE: Final = sa.text("""
INSERT INTO nodes (id, provider_id, worker_id, public_key, name, region, price_class)
VALUES (:id, :provider, :worker, :key, :name, :region, '') ON CONFLICT (worker_id) DO NOTHING RETURNING id
""")
# A changed key ends the session that the old key opened; a repeat with the same key disturbs nobody. A region chosen by the owner stays.
_REJOIN: Final = sa.text("""
UPDATE nodes SET name = :name,
    session = CASE WHEN public_key = :key THEN session END,
    session_token_hash = CASE WHEN public_key = :key THEN session_token_hash END,
    public_key = :key,
    state = CASE WHEN state = 'left' THEN 'registering' ELSE state END,
    draining = CASE WHEN state = 'left' THEN false ELSE draining END
WHERE id = :id
""")
_FACTS: Final = sa.text("""
UPDATE nodes SET qubix_version = :qubix, ray_version = :ray, python_version = :python, hostname = :hostname, cpu_model = :cpu,
    cpu_cores = :cores, ram_bytes = :ram, disk_bytes = :disk, sandbox = cast(:sandbox AS jsonb) WHERE id = :id
""")
# What a node re-reports keeps its row (leases and history hang on it); a device that is no longer there is marked gone.
_DEVICES: Final = sa.text("""
INSERT INTO devices (node_id, uuid, model, vram_bytes, detected_by)
SELECT :node, d.uuid, d.model, d.vram_bytes, d.detected_by
FROM unnest(cast(:uuids AS text[]), cast(:models AS text[]), cast(:vrams AS bigint[]), cast(:sources AS text[])) AS d(uuid, model, vram_bytes, detected_by)
ON CONFLICT (node_id, uuid) DO UPDATE SET model = excluded.model, vram_bytes = excluded.vram_bytes, detected_by = excluded.detected_by,
    verified = devices.verified AND excluded.detected_by = 'nvml' AND devices.model = excluded.model, gone_at = NULL
WHERE (devices.model, devices.vram_bytes, devices.detected_by, devices.gone_at) IS DISTINCT FROM
      (excluded.model, excluded.vram_bytes, excluded.detected_by, NULL::timestamptz)
""")
_NODE_COLUMNS: Final = """n.id, n.provider_id, n.worker_id, n.name, n.region, n.state, n.paused, n.draining, n.qubix_version, n.ray_version,
n.cpu_model, n.cpu_cores, n.ram_bytes, n.disk_bytes, n.sandbox, n.last_status_at, n.metrics_at,
extract(epoch FROM clock_timestamp() - n.last_status_at)::float8 AS status_age_s,
extract(epoch FROM clock_timestamp() - n.metrics_at)::float8 AS metrics_age_s"""
_SAMPLE_NODE: Final = sa.text("UPDATE nodes SET metrics_at = clock_timestamp() WHERE id = :id AND state <> 'left'")
_SAMPLE_DEVICES: Final = sa.text("""
WITH fresh AS (
    SELECT d.id, s.* FROM jsonb_to_recordset(cast(:samples AS jsonb)) AS s(node_id uuid, node_at float8, cpu_pct real, ram_used_bytes bigint,
        uuid text, utilisation_pct real, memory_used_bytes bigint, temperature_c real, power_w real)
    JOIN devices d ON d.node_id = s.node_id AND d.uuid = s.uuid),
kept AS (
    INSERT INTO device_metrics (device_id, at, node_at, utilisation_pct, memory_used_bytes, temperature_c, power_w, cpu_pct, ram_used_bytes)
    SELECT id, clock_timestamp(), to_timestamp(node_at), utilisation_pct, memory_used_bytes, temperature_c, power_w, cpu_pct, ram_used_bytes FROM fresh)
UPDATE devices d SET sampled_at = clock_timestamp(), sample = jsonb_build_object('utilisation_pct', f.utilisation_pct, 'memory_used_bytes',
    f.memory_used_bytes, 'temperature_c', f.temperature_c, 'power_w', f.power_w, 'cpu_pct', f.cpu_pct, 'ram_used_bytes', f.ram_used_bytes, 'node_at', f.node_at)
FROM fresh f WHERE d.id = f.id RETURNING d.node_id, d.id, d.uuid, d.heat, f.temperature_c, d.gone_at IS NULL AS present
""")
# Rows in lock order; the state is judged again under the lock, so a status that arrives meanwhile wins.
_OFFLINE: Final = sa.text("""
UPDATE nodes SET state = 'offline', socket_open = false WHERE id IN (
    SELECT id FROM nodes WHERE state = 'online' AND coalesce(last_status_at, created_at) < clock_timestamp() - make_interval(secs => :age)
    ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, provider_id, name
""")


class ProvidersStore:
    """Reads and writes providers, nodes and devices."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _rows(self, statement: sa.TextClause, **values: Any) -> list[sa.Row[Any]]:
        return list((await self._connection.execute(statement, values)).all())

    async def _one(self, statement: sa.TextClause, **values: Any) -> sa.Row[Any] | None:
        return (await self._connection.execute(statement, values)).one_or_none()

    # -- providers and tokens --

    async def ensure_provider(self, provider_id: UUID, owner_id: UUID, name: str) -> sa.Row[Any]:
        """The owner's provider, made where there is none."""
        await self._connection.execute(
            sa.text("INSERT INTO providers (id, owner_id, name) VALUES (:id, :owner, :name) ON CONFLICT (owner_id) DO NOTHING"),
            {"id": provider_id, "owner": owner_id, "name": name},
        )
        row = await self.provider_of(owner_id)
        assert row is not None  # noqa: S101  (typing: it was inserted, or there was one)
        return row

    async def rename(self, owner_id: UUID, name: str) -> None:
        """Change a provider's name."""
        await self._connection.execute(
            sa.text("UPDATE providers SET name = :name WHERE owner_id = :owner"), {"name": name, "owner": owner_id}
        )

    async def provider_of(self, owner_id: UUID) -> sa.Row[Any] | None:
        """The provider that a user owns."""
        return await self._one(sa.text("SELECT * FROM providers WHERE owner_id = :owner"), owner=owner_id)

    async def provider(self, provider_id: UUID) -> sa.Row[Any] | None:
        """One provider."""
        return await self._one(sa.text("SELECT * FROM providers WHERE id = :id"), id=provider_id)

    async def recount_reputation(self, provider_id: UUID) -> tuple[int, int]:
        """(ended, faulted) counted again from the attempts themselves."""
        row = await self._one(
            sa.text("""SELECT count(*) AS ended, count(*) FILTER (WHERE fault = 'provider') AS faulted FROM attempts
                       WHERE provider_id = :id AND state NOT IN ('CREATED', 'ACCEPTED', 'RUNNING')"""),
            id=provider_id,
        )
        return (0, 0) if row is None else (int(row.ended), int(row.faulted))

    async def add_token(self, token_id: UUID, provider_id: UUID, token_hash: bytes, ttl_s: int) -> dt.datetime:
        """Insert a join token. Returns when it expires."""
        row = await self._one(
            sa.text(
                "INSERT INTO join_tokens (id, provider_id, token_hash, expires_at)"
                " VALUES (:id, :provider, :hash, now() + make_interval(secs => :ttl)) RETURNING expires_at"
            ),
            id=token_id,
            provider=provider_id,
            hash=token_hash,
            ttl=ttl_s,
        )
        assert row is not None  # noqa: S101  (typing: an INSERT … RETURNING answers a row)
        expires: dt.datetime = row.expires_at
        return expires

    async def open_tokens(self, provider_id: UUID) -> int:
        """How many tokens of a provider wait to be spent."""
        statement = sa.text("SELECT count(*) FROM join_tokens WHERE provider_id = :id AND used_at IS NULL AND expires_at > now()")
        return int(await self._connection.scalar(statement, {"id": provider_id}) or 0)

    async def lock_token(self, token_hash: bytes) -> sa.Row[Any] | None:
        """(id, provider_id, used_at, expired, by_label, worker_id, public_key, state) of a token, locked."""
        return await self._one(_TOKEN, hash=token_hash)

    async def spend_token(self, token_id: UUID, node_id: UUID) -> None:
        """Bind a token to the node that it let in."""
        await self._connection.execute(
            sa.text("UPDATE join_tokens SET used_at = now(), node_id = :node WHERE id = :id"), {"id": token_id, "node": node_id}
        )

    # -- nodes --

    async def add_node(self, provider_id: UUID, worker_id: str, public_key: bytes, name: str, region: str) -> UUID | None:
        """Insert a node; None when the worker id exists."""
        values = {"id": new_id(), "provider": provider_id, "worker": worker_id, "key": public_key, "name": name, "region": region}
        row = await self._one(_ADD_NODE, **values)
        return None if row is None else row.id

    async def lock_worker(self, worker_id: str) -> sa.Row[Any] | None:
        """(id, provider_id, public_key, state) of a worker, locked."""
        statement = sa.text("SELECT id, provider_id, public_key, state FROM nodes WHERE worker_id = :worker FOR UPDATE")
        return await self._one(statement, worker=worker_id)

    async def rejoin(self, node_id: UUID, public_key: bytes, name: str) -> None:
        """Take a known worker in again."""
        await self._connection.execute(_REJOIN, {"id": node_id, "key": public_key, "name": name})

    async def set_facts(self, node_id: UUID, facts: NodeFacts) -> None:
        """Store what a node says of itself, its devices included."""
        await self._connection.execute(
            _FACTS,
            {
                "id": node_id,
                "qubix": facts.qubix_version,
                "ray": facts.ray_version,
                "python": facts.python_version,
                "hostname": facts.hostname,
                "cpu": facts.cpu_model,
                "cores": facts.cpu_cores,
                "ram": facts.ram_bytes,
                "disk": facts.disk_bytes,
                "sandbox": json.dumps(facts.sandbox),
            },
        )
        await self._set_devices(node_id, facts.devices)

    async def _set_devices(self, node_id: UUID, devices: Sequence[Device]) -> None:
        uuids = [device.uuid for device in devices]
        await self._connection.execute(
            _DEVICES,
            {
                "node": node_id,
                "uuids": uuids,
                "models": [device.model for device in devices],
                "vrams": [device.vram_bytes for device in devices],
                "sources": [device.detected_by for device in devices],
            },
        )
        await self._connection.execute(
            sa.text("UPDATE devices SET gone_at = now() WHERE node_id = :node AND gone_at IS NULL AND uuid <> ALL(cast(:uuids AS text[]))"),
            {"node": node_id, "uuids": uuids},
        )

    async def owned_node(self, owner_id: UUID, node_id: UUID) -> sa.Row[Any] | None:
        """(id, provider_id, state, paused, draining) of a node of this owner, locked; None for anybody else's."""
        statement = sa.text("""SELECT n.id, n.provider_id, n.name, n.state, n.paused, n.draining FROM nodes n JOIN providers p ON p.id = n.provider_id
                               WHERE n.id = :node AND p.owner_id = :owner FOR UPDATE OF n""")
        return await self._one(statement, node=node_id, owner=owner_id)

    async def set_node(self, node_id: UUID, **values: Any) -> None:
        """Change columns of a node (names are ours, never a caller's)."""
        await self._connection.execute(sa.update(tables.nodes).where(tables.nodes.c.id == node_id).values(**values))

    async def set_online(self, node_id: UUID) -> None:
        """The node was heard of just now, and is online."""
        statement = sa.text("UPDATE nodes SET state = 'online', dead_at = NULL, last_status_at = clock_timestamp() WHERE id = :id")
        await self._connection.execute(statement, {"id": node_id})

    async def set_windows(self, node_id: UUID, windows: Sequence[tuple[int, int, int]]) -> None:
        """Replace the availability windows."""
        await self._connection.execute(sa.text("DELETE FROM node_windows WHERE node_id = :id"), {"id": node_id})
        rows = [{"node_id": node_id, "weekday": day, "opens": opens, "closes": closes} for day, opens, closes in windows]
        if rows:
            await self._connection.execute(sa.insert(tables.node_windows), rows)

    async def active_leases(self, node_id: UUID) -> int:
        """How many devices of a node are leased now. Read-only look at capacity's table; only leaving needs it."""
        statement = sa.text("""SELECT count(*) FROM device_leases l JOIN devices d ON d.id = l.device_id
                               WHERE d.node_id = :id AND upper(l.during) > clock_timestamp()""")
        return int(await self._connection.scalar(statement, {"id": node_id}) or 0)

    async def nodes(self, provider_id: UUID) -> list[sa.Row[Any]]:
        """The nodes of a provider, oldest first."""
        return await self._rows(sa.text(f"SELECT {_NODE_COLUMNS} FROM nodes n WHERE n.provider_id = :id ORDER BY n.id"), id=provider_id)  # noqa: S608

    async def node(self, node_id: UUID) -> sa.Row[Any] | None:
        """One node."""
        return await self._one(sa.text(f"SELECT {_NODE_COLUMNS} FROM nodes n WHERE n.id = :id"), id=node_id)  # noqa: S608

    async def devices(self, node_ids: Sequence[UUID]) -> list[sa.Row[Any]]:
        """The present devices of these nodes."""
        statement = sa.text("SELECT * FROM devices WHERE node_id = ANY(:ids) AND gone_at IS NULL ORDER BY node_id, id")
        return await self._rows(statement.bindparams(sa.bindparam("ids", type_=_UUIDS)), ids=list(node_ids))

    async def windows(self, node_ids: Sequence[UUID]) -> list[sa.Row[Any]]:
        """The availability windows of these nodes."""
        statement = sa.text("SELECT * FROM node_windows WHERE node_id = ANY(:ids) ORDER BY node_id, weekday, opens")
        return await self._rows(statement.bindparams(sa.bindparam("ids", type_=_UUIDS)), ids=list(node_ids))

    async def mark_offline(self, age_s: int, batch_max: int) -> list[sa.Row[Any]]:
        """Online nodes whose last status is older than `age_s` become offline; returns (id, provider_id, name)."""
        return await self._rows(_OFFLINE, age=age_s, most=batch_max)

    # -- samples --

    async def note_measured(self, node_id: UUID) -> None:
        """The node's metrics are fresh."""
        await self._connection.execute(_SAMPLE_NODE, {"id": node_id})

    async def add_samples(self, samples: Mapping[UUID, NodeSample]) -> list[sa.Row[Any]]:
        """Store one sample per node; returns (node_id, id, uuid, heat, temperature_c, present) of the devices in them."""
        rows = [
            {
                "node_id": str(node),
                "node_at": sample.node_at,
                "cpu_pct": sample.cpu_pct,
                "ram_used_bytes": sample.ram_used_bytes,
                **device.model_dump(),
            }
            for node, sample in samples.items()
            for device in sample.devices
        ]
        return await self._rows(_SAMPLE_DEVICES, samples=json.dumps(rows)) if rows else []

    async def set_heat(self, device_id: int, heat: str, *, overheating: bool) -> None:
        """Note what a device's temperature asks for."""
        await self._connection.execute(
            sa.text("UPDATE devices SET heat = :heat, overheating = :hot WHERE id = :id"),
            {"id": device_id, "heat": heat, "hot": overheating},
        )

    async def bump_generation(self, node_id: UUID) -> None:
        """What the node should run has changed."""
        await self._connection.execute(sa.text("UPDATE nodes SET generation = generation + 1 WHERE id = :id"), {"id": node_id})

    async def history(self, device_id: int, seconds: int, limit: int) -> list[sa.Row[Any]]:
        """Samples of a device, newest first."""
        return await self._rows(
            sa.text("""SELECT at, node_at, utilisation_pct, memory_used_bytes, temperature_c, power_w, cpu_pct, ram_used_bytes FROM device_metrics
                       WHERE device_id = :id AND at > now() - make_interval(secs => :age) ORDER BY at DESC LIMIT :most"""),
            id=device_id,
            age=seconds,
            most=limit,
        )

    async def partitions(self, ahead_days: int, keep_days: int) -> None:
        """Make the metrics partitions of the coming days, drop those past retention."""
        await self._connection.execute(sa.text("SELECT make_metric_partitions(:days)"), {"days": ahead_days})
        await self._connection.execute(sa.text("SELECT drop_metric_partitions(:days)"), {"days": keep_days})

    async def forget_tokens(self, batch_max: int) -> int:
        """Delete join tokens that expired a day ago."""
        statement = sa.text("""DELETE FROM join_tokens WHERE id IN (SELECT id FROM join_tokens
                               WHERE expires_at < now() - interval '1 day' ORDER BY expires_at LIMIT :most)""")
        return (await self._connection.execute(statement, {"most": batch_max})).rowcount
