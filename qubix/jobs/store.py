"""Jobs in PostgreSQL: creation, the owner's reads, cancellation, blobs and their references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.jobs import tables as tables
from qubix.jobs.blobs import Blob
from qubix.jobs.model import Artefact, Attempt, AttemptState, Fault, Input, Job, JobState, LogLine
from qubix.kernel.money import Qu
from qubix.market.model import Needs

_INSERT: Final = sa.text("""
INSERT INTO jobs (id, owner_id, name, kind, params, needs, limits, state, attempts_max, rate_max, ceiling, duration_max_s, asset,
                  quote_id, offer_id, retry_own_failures, wait_s)
VALUES (:id, :owner_id, :name, :kind, cast(:params AS jsonb), cast(:needs AS jsonb), cast(:limits AS jsonb), :state, :attempts_max, :rate_max,
        :ceiling, :duration_max_s, :asset, :quote_id, :offer_id, :retry_own_failures, :wait_s)
""")

# PENDING starts the wait for a match; the database's clock says when it ends.
_PENDING: Final = sa.text("""
UPDATE jobs SET state = 'PENDING', pending_at = clock_timestamp(), wait_until = clock_timestamp() + make_interval(secs => wait_s)
WHERE id = :id RETURNING *
""")

# A touch restarts the day after which a blob that nobody refers to is removed, and locks it for the reference to come. One that was
# touched within _LOCKED_ONLY_S is only locked, and not alone: a hundred jobs with the same script must not wait for each other.
_LOCKED_ONLY_S: Final = 3600.0
_KEEP_BLOB: Final = sa.text("""
WITH touched AS (
  SELECT b.sha256 FROM blobs b WHERE b.sha256 = :sha256 AND b.unreferenced_since > clock_timestamp() - make_interval(secs => :locked_only_s) FOR KEY SHARE)
INSERT INTO blobs (sha256, size) SELECT cast(:sha256 AS text), cast(:size AS bigint) WHERE NOT EXISTS (SELECT FROM touched)
ON CONFLICT (sha256) DO UPDATE SET unreferenced_since = clock_timestamp()
""")

# Files that no row knows (their recording failed, or its process died) get one, and go the way of all that nothing refers to.
_ADOPT: Final = sa.text("""
INSERT INTO blobs (sha256, size)
SELECT f.sha256, f.size FROM unnest(cast(:hashes AS text[]), cast(:sizes AS bigint[])) AS f (sha256, size)
WHERE NOT EXISTS (SELECT FROM blobs b WHERE b.sha256 = f.sha256) ORDER BY f.sha256 LIMIT :most
ON CONFLICT DO NOTHING
""")

# Locked rows are being referred to at this moment; the foreign keys refuse the rest.
_STALE_BLOBS: Final = sa.text("""
SELECT b.sha256 FROM blobs b WHERE b.unreferenced_since < clock_timestamp() - make_interval(secs => :keep_s)
  AND NOT EXISTS (SELECT FROM checkpoints c WHERE c.sha256 = b.sha256)
  AND NOT EXISTS (SELECT FROM artefacts a WHERE a.sha256 = b.sha256)
  AND NOT EXISTS (SELECT FROM job_inputs i WHERE i.sha256 = b.sha256)
  AND NOT EXISTS (SELECT FROM uploads u WHERE u.sha256 = b.sha256)
ORDER BY b.unreferenced_since LIMIT :most FOR UPDATE OF b SKIP LOCKED
""")

_ATTEMPTS: Final = """
SELECT a.*, n.name AS node_name FROM attempts a JOIN nodes n ON n.id = a.node_id
"""

# Node before job before attempt is the order of locks; the live attempt's node is read first and checked again by the caller.
_LOCK_LIVE_NODE: Final = sa.text("""
SELECT n.id FROM nodes n JOIN attempts a ON a.node_id = n.id
WHERE a.job_id = :job AND a.state IN ('CREATED', 'ACCEPTED', 'RUNNING') FOR UPDATE OF n
""")

_LOGS: Final = sa.text("""
SELECT l.position, l.attempt_id, a.number, l.stream, l."offset", l.text, l.node_at, l.created_at
FROM log_chunks l JOIN attempts a ON a.id = l.attempt_id
WHERE a.job_id = :job AND l.position > :after AND (cast(:stream AS text) IS NULL OR l.stream = :stream)
ORDER BY l.position LIMIT :most
""")


class JobStore:
    """SQL of jobs over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, job: dict[str, Any]) -> None:
        """Write a new job (the columns of `_INSERT`; params, needs and limits as JSON values)."""
        as_json = {name: json.dumps(job[name]) for name in ("params", "needs", "limits")}
        await self._connection.execute(_INSERT, {**job, **as_json})

    async def insert_inputs(self, job_id: UUID, inputs: Sequence[Input]) -> None:
        """Refer to the inputs' bytes, which are kept (keep_blob), so that they stay."""
        if not inputs:
            return
        await self._connection.execute(
            sa.text("INSERT INTO job_inputs (job_id, name, sha256, size) VALUES (:job, :name, :sha256, :size)"),
            [{"job": job_id, "name": item.name, "sha256": item.sha256, "size": item.size} for item in inputs],
        )

    async def make_pending(self, job_id: UUID) -> Job:
        """The job is funded: it waits for a node from now on."""
        return read_job((await self._connection.execute(_PENDING, {"id": job_id})).one())

    async def get(self, job_id: UUID, owner_id: UUID) -> Job | None:
        """The owner's job."""
        row = (
            await self._connection.execute(
                sa.text("SELECT * FROM jobs WHERE id = :id AND owner_id = :owner"), {"id": job_id, "owner": owner_id}
            )
        ).one_or_none()
        return None if row is None else read_job(row)

    async def lock_for_cancel(self, job_id: UUID, owner_id: UUID) -> tuple[Job, UUID | None, UUID | None] | None:
        """The owner's job, locked, with the node that was locked before it and the node of its live attempt now."""
        locked = await self._connection.scalar(_LOCK_LIVE_NODE, {"job": job_id})
        row = (
            await self._connection.execute(
                sa.text("SELECT * FROM jobs WHERE id = :id AND owner_id = :owner FOR UPDATE"), {"id": job_id, "owner": owner_id}
            )
        ).one_or_none()
        if row is None:
            return None
        live = await self._connection.scalar(
            sa.text("SELECT node_id FROM attempts WHERE job_id = :id AND state IN ('CREATED', 'ACCEPTED', 'RUNNING')"), {"id": job_id}
        )
        return read_job(row), locked, live

    async def tell_unplaceable(self, job_id: UUID, why: dict[str, Any]) -> None:
        """Note why the job waits."""
        await self._connection.execute(
            sa.text("UPDATE jobs SET unplaceable = cast(:why AS jsonb) WHERE id = :id"), {"id": job_id, "why": json.dumps(why, default=str)}
        )

    async def request_cancel(self, job_id: UUID, node_id: UUID | None) -> None:
        """Mark the job; its node's desired state changes with it."""
        await self._connection.execute(
            sa.text("UPDATE jobs SET cancel_requested_at = clock_timestamp() WHERE id = :id AND cancel_requested_at IS NULL"),
            {"id": job_id},
        )
        if node_id is not None:
            await self._connection.execute(sa.text("UPDATE nodes SET generation = generation + 1 WHERE id = :id"), {"id": node_id})

    async def page(self, owner_id: UUID, *, states: Sequence[str] | None, before: UUID | None, most: int) -> list[Job]:
        """The owner's jobs, newest first, behind job `before` (ids are time-ordered)."""
        rows = await self._connection.execute(
            sa.text("""SELECT * FROM jobs WHERE owner_id = :owner AND (cast(:before AS uuid) IS NULL OR id < :before)
                       AND (cast(:states AS text[]) IS NULL OR state = ANY(:states)) ORDER BY id DESC LIMIT :most""").bindparams(
                sa.bindparam("states", type_=sa.ARRAY(sa.Text))
            ),
            {"owner": owner_id, "before": before, "states": None if states is None else list(states), "most": most},
        )
        return [read_job(row) for row in rows]

    async def attempts(self, job_id: UUID) -> list[Attempt]:
        """All attempts of a job, in order."""
        rows = await self._connection.execute(sa.text(_ATTEMPTS + " WHERE a.job_id = :job ORDER BY a.number"), {"job": job_id})
        return [read_attempt(row) for row in rows]

    async def inputs(self, job_id: UUID) -> list[Input]:
        """The job's inputs by name."""
        rows = await self._connection.execute(
            sa.text("SELECT name, sha256, size FROM job_inputs WHERE job_id = :job ORDER BY name"), {"job": job_id}
        )
        return [Input(row.name, row.sha256, row.size) for row in rows]

    async def artefacts(self, job_id: UUID) -> list[Artefact]:
        """The newest artefact of each name, over all attempts that were not superseded before they sent it."""
        rows = await self._connection.execute(
            sa.text("""SELECT DISTINCT ON (r.name) r.* FROM artefacts r JOIN attempts a ON a.id = r.attempt_id
                       WHERE r.job_id = :job ORDER BY r.name, a.number DESC"""),
            {"job": job_id},
        )
        return [Artefact(r.attempt_id, r.job_id, r.name, r.sha256, r.size, r.created_at) for r in rows]

    async def checkpoints(self, job_id: UUID) -> list[tuple[int, int, Any]]:
        """(attempt's number, checkpoint's number, stored at) in order, for the timeline."""
        rows = await self._connection.execute(
            sa.text("""SELECT a.number, c.n, c.created_at FROM checkpoints c JOIN attempts a ON a.id = c.attempt_id
                       WHERE a.job_id = :job ORDER BY c.created_at"""),
            {"job": job_id},
        )
        return [(row.number, row.n, row.created_at) for row in rows]

    async def logs(self, job_id: UUID, *, after: int, stream: str | None, most: int) -> list[LogLine]:
        """Log pieces behind position `after`, in the order of arrival."""
        rows = await self._connection.execute(_LOGS, {"job": job_id, "after": after, "stream": stream, "most": most})
        return [LogLine(*row) for row in rows]

    async def keep_blob(self, blob: Blob) -> None:
        """Note stored bytes; the row stays locked until the commit, so a reference can be added safely."""
        await self._connection.execute(_KEEP_BLOB, {"sha256": blob.sha256, "size": blob.size, "locked_only_s": _LOCKED_ONLY_S})

    async def claim_blob(self, blob: Blob) -> bool:
        """Insert the blob's row, and so lock it, if there is none. Returns whether there was none."""
        rows = await self._connection.execute(
            sa.text("INSERT INTO blobs (sha256, size) VALUES (:sha256, :size) ON CONFLICT DO NOTHING"),
            {"sha256": blob.sha256, "size": blob.size},
        )
        return rows.rowcount > 0

    async def adopt_blobs(self, found: Sequence[Blob], *, most: int) -> int:
        """Give at most `most` of these files that have no row one that nothing refers to. Returns how many."""
        values = {"hashes": [blob.sha256 for blob in found], "sizes": [blob.size for blob in found], "most": most}
        return (await self._connection.execute(_ADOPT, values)).rowcount

    async def lock_stale_blobs(self, *, keep_s: float, most: int) -> list[str]:
        """Blobs that nothing has referred to for `keep_s`, locked."""
        return [row.sha256 for row in await self._connection.execute(_STALE_BLOBS, {"keep_s": keep_s, "most": most})]

    async def forget_blobs(self, hashes: Sequence[str]) -> None:
        """Remove the rows of blobs whose files are gone."""
        await self._connection.execute(sa.text("DELETE FROM blobs WHERE sha256 = ANY(cast(:hashes AS text[]))"), {"hashes": list(hashes)})


def read_job(row: sa.Row[Any]) -> Job:
    """A row of `jobs` as a value."""
    r = row._mapping
    same = {
        name: r[name]
        for name in (
            "id", "owner_id", "name", "kind", "params", "fence", "attempts_max", "duration_max_s", "asset", "quote_id", "offer_id",
            "retry_own_failures", "progress", "operation", "reason", "reason_detail", "unplaceable", "wait_until",
            "cancel_requested_at", "created_at", "pending_at", "started_at", "ended_at",
        )
    }  # fmt: skip
    return Job(**same, state=JobState(r["state"]), needs=Needs.parse(r["needs"]), rate_max=Qu(r["rate_max"]), ceiling=Qu(r["ceiling"]))


def read_attempt(row: sa.Row[Any]) -> Attempt:
    """A row of `attempts` with its node's name as a value."""
    r = row._mapping
    same = {
        name: r[name]
        for name in (
            "id", "job_id", "number", "fence", "node_id", "node_name", "provider_id", "offer_id", "limit_ms", "created_at", "accepted_at",
            "running_at", "renewed_at", "reported_at", "ended_at", "exit_code", "signal", "reason", "reason_detail", "agent_ms",
            "metered_ms", "resumed_from", "restore_failed", "progress",
        )
    }  # fmt: skip
    return Attempt(
        **same,
        rate=Qu(r["rate"]),
        charge=None if r["charge"] is None else Qu(r["charge"]),
        state=AttemptState(r["state"]),
        device_uuids=tuple(r["device_uuids"]),
        fault=None if r["fault"] is None else Fault(r["fault"]),
    )


__all__ = ["JobStore", "read_attempt", "read_job", "tables"]
