"""SQL of agent sessions and frames: who speaks for a node, what it may say about which attempt, and what it sent."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Artefact, AttemptSpec, Checkpoint, Desired, DesiredAttempt, Finished, Limits, Log
from qubix.agent.protocol import InputFile as WireInput
from qubix.agent.protocol import Restore as WireRestore
from qubix.jobs.model import AttemptState, JobState
from qubix.scheduling import log_store

_LIVE: Final = "('CREATED', 'ACCEPTED', 'RUNNING')"
_UUIDS: Final = pg.ARRAY(pg.UUID(as_uuid=True))

_OPEN: Final = sa.text("""
UPDATE nodes SET session = :session, session_seq = 0, session_token_hash = :token_hash, socket_open = true, dead_at = NULL,
    last_status_at = clock_timestamp() WHERE id = :node RETURNING generation
""")

_SESSION_ROW: Final = "SELECT public_key, state, session, session_seq, generation, provider_id, name FROM nodes WHERE id = :id"
_NODE: Final = sa.text(_SESSION_ROW)
_NODE_LOCKED: Final = sa.text(_SESSION_ROW + " FOR UPDATE")

# One statement, so generation and attempts are of one moment. What was cancelled, has reported its end, or runs on a device
# that is too hot, is not desired.
_DESIRED: Final = sa.text(f"""
SELECT n.id AS node_id, n.session, n.generation, a.id, a.fence, a.device_uuids, a.limit_ms, j.kind, j.params, j.needs, j.limits, j.progress, c.n, c.sha256, c.size,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('name', i.name, 'sha256', i.sha256, 'size', i.size) ORDER BY i.name), '[]')
        FROM job_inputs i WHERE i.job_id = j.id) AS inputs
FROM nodes n
LEFT JOIN (attempts a JOIN jobs j ON j.id = a.job_id)
  ON a.node_id = n.id AND a.state IN {_LIVE} AND a.reported_at IS NULL AND j.cancel_requested_at IS NULL AND a.fence = j.fence
  AND NOT EXISTS (SELECT FROM devices d WHERE d.node_id = a.node_id AND d.uuid = ANY (a.device_uuids) AND d.heat IN ('over_limit', 'critical'))
LEFT JOIN checkpoints c ON c.attempt_id = a.restore_attempt_id AND c.n = a.resumed_from
WHERE n.id = ANY (:nodes) AND n.session IS NOT NULL ORDER BY n.id, a.id
""").bindparams(sa.bindparam("nodes", type_=_UUIDS))  # noqa: S608

# The job's row is locked before the attempt's; a frame of an old session finds nothing.
_SEEN: Final = """
SELECT a.id AS attempt_id, a.job_id, a.node_id, a.provider_id, a.state, j.state AS job_state, a.fence = j.fence AS fenced, a.limit_ms, a.number,
       a.reported_at IS NOT NULL AS reported, j.cancel_requested_at IS NOT NULL AS cancelled, j.limits, j.progress,
       e.state = 'LOCKED' AS funded
FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN nodes n ON n.id = a.node_id LEFT JOIN escrows e ON e.id = j.id
WHERE a.id = :attempt AND a.fence = :fence AND a.node_id = :node AND n.session = :session
"""
_LOCKED: Final = sa.text(_SEEN + " FOR UPDATE OF j, a")
_PEEK: Final = sa.text(_SEEN)

# Time to fetch the inputs and the checkpoint over a slow link is added to the deadline; it costs the consumer nothing.
_ACCEPT: Final = sa.text("""
UPDATE attempts a SET state = 'ACCEPTED', accepted_at = clock_timestamp(), renewed_at = clock_timestamp(),
    start_deadline_at = clock_timestamp() + make_interval(secs => :deadline_s + (
        (SELECT coalesce(sum(i.size), 0) FROM job_inputs i WHERE i.job_id = a.job_id)
        + (SELECT coalesce(sum(c.size), 0) FROM checkpoints c WHERE c.attempt_id = a.restore_attempt_id AND c.n = a.resumed_from))::float8 / :bytes_per_s)
WHERE a.id = :id RETURNING extract(epoch FROM start_deadline_at - accepted_at)::float8
""")

# Who was given no checkpoint cannot have failed to restore it: believed, the claim would make any failure the platform's, and its work free.
_FINISHED: Final = sa.text("""
UPDATE attempts SET reported_at = clock_timestamp(), exit = :exit, exit_code = :exit_code, signal = :signal, reason_detail = :detail,
    agent_ms = :agent_ms, restore_failed = :restore_failed AND resumed_from IS NOT NULL WHERE id = :id AND reported_at IS NULL
""")

# Whoever knows a hash does not have the bytes: only what this attempt has sent itself counts, not what others stored.
_BLOB_SIZE: Final = sa.text("""
UPDATE blobs b SET unreferenced_since = clock_timestamp() FROM attempt_blobs p
WHERE p.attempt_id = :attempt AND p.sha256 = :sha256 AND b.sha256 = p.sha256 RETURNING b.size
""")


@dataclasses.dataclass(frozen=True, slots=True)
class NodeRow:
    """A node's session."""

    public_key: bytes
    state: str
    session: UUID | None
    session_seq: int
    generation: int
    provider_id: UUID
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """The attempt that a frame of the node's current session speaks of."""

    attempt_id: UUID
    job_id: UUID
    node_id: UUID
    provider_id: UUID
    state: AttemptState
    job_state: JobState
    number: int
    fenced: bool
    reported: bool
    cancelled: bool
    funded: bool
    limit_ms: int
    limits: Limits
    progress: float

    @property
    def live(self) -> bool:
        """Neither over nor fenced off."""
        return self.fenced and not self.state.final


class FrameStore:
    """Sessions and frames over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    # -- sessions --

    async def node(self, node_id: UUID, *, locked: bool = False) -> NodeRow | None:
        """The node's session row. Args: locked, until the transaction's end."""
        row = (await self._connection.execute(_NODE_LOCKED if locked else _NODE, {"id": node_id})).one_or_none()
        return None if row is None else NodeRow(bytes(row.public_key), *row[1:])

    async def open_session(self, node_id: UUID, session: UUID, token_hash: bytes) -> None:
        """This session speaks for the node from now on."""
        await self._connection.execute(_OPEN, {"node": node_id, "session": session, "token_hash": token_hash})

    async def close_socket(self, node_id: UUID, session: UUID) -> bool:
        """The session's socket is gone. Returns False when another session is current."""
        rows = await self._connection.execute(
            sa.text("UPDATE nodes SET socket_open = false WHERE id = :node AND session = :session"), {"node": node_id, "session": session}
        )
        return rows.rowcount > 0

    async def beat(self, *, begun: bool, gap_max_s: float) -> None:
        """The web layer lives. Args: begun, this replica has just begun; gap_max_s, a longer pause of all replicas is noted."""
        await self._connection.execute(sa.text("SELECT web_beat(:begun, :gap_max_s)"), {"begun": begun, "gap_max_s": gap_max_s})

    async def by_token(self, token_hash: bytes) -> tuple[UUID, UUID] | None:
        """(node, session) of a session's token."""
        row = (
            await self._connection.execute(
                sa.text("SELECT id, session FROM nodes WHERE session_token_hash = :hash AND session IS NOT NULL"), {"hash": token_hash}
            )
        ).one_or_none()
        return None if row is None else (row.id, row.session)

    async def desired(self, nodes: Sequence[UUID]) -> dict[UUID, Desired]:
        """The desired state of those of the nodes that have a session."""
        rows = (await self._connection.execute(_DESIRED, {"nodes": list(nodes)})).all()
        return {
            node: Desired(session=of_node[0].session, generation=of_node[0].generation, attempts=_desired_attempts(of_node))
            for node, of_node in ((key, list(group)) for key, group in itertools.groupby(rows, key=lambda row: row.node_id))
        }

    async def session(self, node_id: UUID) -> UUID | None:
        """The session that speaks for the node."""
        found: UUID | None = await self._connection.scalar(sa.text("SELECT session FROM nodes WHERE id = :id"), {"id": node_id})
        return found

    # -- frames --

    async def lock_attempt(self, node_id: UUID, session: UUID, attempt_id: UUID, fence: int) -> Spoken | None:
        """The attempt and its job, locked; None for another node's, another fence, or a session that is over."""
        return await self._spoken(_LOCKED, node_id, session, attempt_id, fence)

    async def peek_attempt(self, node_id: UUID, session: UUID, attempt_id: UUID, fence: int) -> Spoken | None:
        """The same without a lock, for what changes neither job nor attempt."""
        return await self._spoken(_PEEK, node_id, session, attempt_id, fence)

    async def _spoken(self, statement: sa.TextClause, node_id: UUID, session: UUID, attempt_id: UUID, fence: int) -> Spoken | None:
        values = {"attempt": attempt_id, "fence": fence, "node": node_id, "session": session}
        row = (await self._connection.execute(statement, values)).one_or_none()
        if row is None:
            return None
        return Spoken(
            row.attempt_id,
            row.job_id,
            row.node_id,
            row.provider_id,
            AttemptState(row.state),
            JobState(row.job_state),
            row.number,
            row.fenced,
            row.reported,
            row.cancelled,
            bool(row.funded),
            row.limit_ms,
            Limits(**row.limits),
            row.progress,
        )

    async def accept(self, attempt_id: UUID, *, deadline_s: float, bytes_per_s: int) -> float:
        """CREATED → ACCEPTED; the attempt must be running before its start deadline. Returns: in how many seconds that is."""
        values = {"id": attempt_id, "deadline_s": deadline_s, "bytes_per_s": float(bytes_per_s)}
        return float(await self._connection.scalar(_ACCEPT, values) or 0)

    async def decline(self, attempt_id: UUID, reason: str) -> None:
        """The node cannot start it; the controller ends it."""
        await self._connection.execute(
            sa.text("""UPDATE attempts SET reported_at = clock_timestamp(), exit = 'declined', reason_detail = :reason
                       WHERE id = :id AND reported_at IS NULL"""),
            {"id": attempt_id, "reason": reason[:2000]},
        )

    async def run(self, attempt_id: UUID, job_id: UUID) -> None:
        """ACCEPTED → RUNNING: metering starts by this clock."""
        await self._connection.execute(
            sa.text("UPDATE attempts SET state = 'RUNNING', running_at = clock_timestamp(), renewed_at = clock_timestamp() WHERE id = :id"),
            {"id": attempt_id},
        )
        await self._connection.execute(
            sa.text("UPDATE jobs SET state = 'RUNNING', started_at = coalesce(started_at, clock_timestamp()) WHERE id = :id"),
            {"id": job_id},
        )

    async def progress(self, spoken: Spoken, *, attempt_pct: float, job_pct: float, operation: str) -> None:
        """The highest progress reached, and what it is doing."""
        await self._connection.execute(
            sa.text("UPDATE jobs SET progress = greatest(progress, :pct), operation = :operation WHERE id = :id AND state = 'RUNNING'"),
            {"id": spoken.job_id, "pct": job_pct, "operation": operation},
        )
        await self._connection.execute(
            sa.text("UPDATE attempts SET progress = greatest(progress, :pct) WHERE id = :id"), {"id": spoken.attempt_id, "pct": attempt_pct}
        )

    async def add_logs(self, frames: Sequence[tuple[Log, int]]) -> None:
        """Store pieces of logs, each with its attempt's `log_bytes_max` (qubix.scheduling.log_store)."""
        await log_store.add(self._connection, frames)

    async def add_blob(self, attempt_id: UUID, sha256: str) -> None:
        """The attempt has sent these bytes; their row is there. A repeat changes nothing."""
        await self._connection.execute(
            sa.text("INSERT INTO attempt_blobs (attempt_id, sha256) VALUES (:attempt, :sha256) ON CONFLICT DO NOTHING"),
            {"attempt": attempt_id, "sha256": sha256},
        )

    async def note_storage(self, attempt_id: UUID, *, failed: bool) -> None:
        """Whether what the attempt sent last could be stored."""
        await self._connection.execute(
            sa.text("""UPDATE attempts SET storage_failed_at = CASE WHEN :failed THEN clock_timestamp() END
                       WHERE id = :id AND (storage_failed_at IS NOT NULL OR :failed)"""),
            {"id": attempt_id, "failed": failed},
        )

    async def blob_size(self, attempt_id: UUID, sha256: str) -> int | None:
        """The size of bytes that the attempt has sent, their row locked against collection; None when it has sent no such bytes."""
        size: int | None = await self._connection.scalar(_BLOB_SIZE, {"attempt": attempt_id, "sha256": sha256})
        return size

    async def add_checkpoint(self, frame: Checkpoint) -> None:
        """Refer to a checkpoint's bytes; a repeat changes nothing."""
        await self._connection.execute(
            sa.text("""INSERT INTO checkpoints (attempt_id, n, sha256, size, progress, ran_ms)
                       VALUES (:attempt, :n, :sha256, :size, :progress, :ran_ms) ON CONFLICT DO NOTHING"""),
            {
                "attempt": frame.attempt,
                "n": frame.number,
                "sha256": frame.sha256,
                "size": frame.size,
                "progress": frame.pct,
                "ran_ms": frame.ran_ms,
            },
        )

    async def add_artefact(self, frame: Artefact, job_id: UUID) -> None:
        """Refer to an artefact's bytes; a repeat changes nothing."""
        await self._connection.execute(
            sa.text("""INSERT INTO artefacts (attempt_id, job_id, name, sha256, size)
                       VALUES (:attempt, :job, :name, :sha256, :size) ON CONFLICT DO NOTHING"""),
            {"attempt": frame.attempt, "job": job_id, "name": frame.name, "sha256": frame.sha256, "size": frame.size},
        )

    async def received(self, attempt_id: UUID) -> tuple[dict[str, int], set[int], set[str]]:
        """What has arrived: per stream the end of its contiguous text, the checkpoints, the artefacts."""
        logs = await log_store.ends(self._connection, attempt_id)
        checkpoints = {
            row.n for row in await self._connection.execute(sa.text("SELECT n FROM checkpoints WHERE attempt_id = :id"), {"id": attempt_id})
        }
        artefacts = {
            row.name
            for row in await self._connection.execute(sa.text("SELECT name FROM artefacts WHERE attempt_id = :id"), {"id": attempt_id})
        }
        return logs, checkpoints, artefacts

    async def finish(self, frame: Finished) -> None:
        """Store the report; the controller concludes."""
        await self._connection.execute(
            _FINISHED,
            {
                "id": frame.attempt,
                "exit": frame.exit.value,
                "exit_code": frame.exit_code,
                "signal": frame.signal,
                "detail": frame.detail.replace("\0", "?"),
                "agent_ms": frame.agent_ms,
                "restore_failed": frame.restore_failed,
            },
        )

    async def lock_puts(self, attempt_id: UUID) -> None:
        """One at a time may note what an attempt has sent, so that their sum can be judged."""
        await self._connection.execute(sa.text("SELECT FROM attempts WHERE id = :id FOR NO KEY UPDATE"), {"id": attempt_id})

    async def stored_bytes(self, attempt_id: UUID, *, besides: str) -> int:
        """How many bytes the attempt has sent, referred to or not, `besides` not counted."""
        statement = sa.text("""SELECT coalesce(sum(b.size), 0) FROM attempt_blobs p JOIN blobs b ON b.sha256 = p.sha256
                               WHERE p.attempt_id = :id AND p.sha256 <> :besides""")
        return int(await self._connection.scalar(statement, {"id": attempt_id, "besides": besides}) or 0)

    async def input(self, job_id: UUID, name: str) -> WireInput | None:
        """One input of a job."""
        row = (
            await self._connection.execute(
                sa.text("SELECT name, sha256, size FROM job_inputs WHERE job_id = :job AND name = :name"), {"job": job_id, "name": name}
            )
        ).one_or_none()
        return None if row is None else WireInput(name=row.name, sha256=row.sha256, size=row.size)

    async def restore(self, attempt_id: UUID) -> WireRestore | None:
        """The checkpoint that an attempt resumes from."""
        row = (
            await self._connection.execute(
                sa.text("""SELECT c.n, c.sha256, c.size FROM attempts a JOIN checkpoints c ON c.attempt_id = a.restore_attempt_id
                           AND c.n = a.resumed_from WHERE a.id = :id"""),
                {"id": attempt_id},
            )
        ).one_or_none()
        return None if row is None else WireRestore(number=row.n, sha256=row.sha256, size=row.size)


def _desired_attempts(rows: Sequence[sa.Row[Any]]) -> tuple[DesiredAttempt, ...]:
    return tuple(_desired_attempt(row) for row in rows if row.id is not None)


def _desired_attempt(row: sa.Row[Any]) -> DesiredAttempt:
    needs = row.needs
    return DesiredAttempt(
        id=row.id,
        fence=row.fence,
        devices=tuple(row.device_uuids),
        limit_ms=row.limit_ms,
        spec=AttemptSpec(
            kind=row.kind,
            params=row.params,
            gpus=len(row.device_uuids),
            vram_bytes=int(needs.get("vram_bytes", 0)),
            inputs=tuple(WireInput(**item) for item in row.inputs),
            restore=None if row.sha256 is None else WireRestore(number=row.n, sha256=row.sha256, size=row.size),
            limits=Limits(**row.limits),
            progress_from=row.progress,
        ),
    )
