"""SQL of ends: an attempt under its locks, its terminal row, its job's next state, and what is due to be swept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.escrow.model import AttemptEnd, Fault, Line, Use
from qubix.jobs.model import AttemptState, JobState
from qubix.kernel.money import Qu
from qubix.scheduling.model import INPUT_BYTES_PER_S, UPLOAD_MAX_S, WEB_GAP_S, WEB_RETURN_S, Live, Rules

_LIVE: Final = "('CREATED', 'ACCEPTED', 'RUNNING')"

# The order of locks everywhere: node, job, attempt. The node never changes, so it can be found before the job is locked.
_LOCK_NODE: Final = sa.text("SELECT n.id FROM nodes n JOIN attempts a ON a.node_id = n.id WHERE a.id = :id FOR NO KEY UPDATE OF n")
_LOCK: Final = sa.text("""
SELECT a.id AS attempt_id, a.job_id, j.owner_id, a.node_id, a.provider_id, j.state AS job_state, a.state, a.number, a.fence,
       (SELECT count(*) FROM attempts t WHERE t.job_id = j.id AND t.counted) AS counted,
       (SELECT count(*) FROM attempts t WHERE t.job_id = j.id AND NOT t.counted) AS declines,
       j.attempts_max, j.retry_own_failures, a.rate, a.limit_ms,
       clock_timestamp() AS now, a.created_at, a.renewed_at, a.running_at, a.reported_at, a.start_deadline_at, j.cancel_requested_at,
       n.dead_at AS node_dead_at, n.socket_open, a.exit, a.exit_code, a.signal, a.reason_detail, a.restore_failed, a.agent_ms,
       a.storage_failed_at IS NOT NULL AS storage_failed,
       coalesce((SELECT b.at < clock_timestamp() - make_interval(secs => :web_gap_s)
                        OR b.resumed_at > clock_timestamp() - make_interval(secs => :web_return_s)
                 FROM sweeper_beats b WHERE b.name = 'web'), false) AS web_away,
       EXISTS (SELECT FROM attempts t WHERE t.job_id = j.id AND t.node_id <> a.node_id AND t.exit = 'killed')
         AS killed_elsewhere,
       least((j.limits ->> 'disk_bytes')::float8 / :bytes_per_s, :upload_max_s) AS upload_s
FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN nodes n ON n.id = a.node_id
WHERE a.id = :id FOR UPDATE OF j, a
""")

# Whatever may be over; each is judged again under its locks by qubix.scheduling.model.overdue.
_OVERDUE: Final = sa.text(f"""
SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN nodes n ON n.id = a.node_id
WHERE a.state IN {_LIVE} AND a.reported_at IS NULL AND (
    (a.state <> 'CREATED' AND a.renewed_at < clock_timestamp() - make_interval(secs => :ttl_s))
    OR (a.state <> 'RUNNING' AND a.start_deadline_at < clock_timestamp())
    OR (n.dead_at IS NOT NULL AND NOT n.socket_open)
    OR (j.cancel_requested_at IS NOT NULL AND (a.state = 'CREATED' OR j.cancel_requested_at < clock_timestamp() - make_interval(secs => :cancel_s)))
    OR a.running_at < clock_timestamp() - make_interval(secs => a.limit_ms::float8 / 1000 + cast(:grace_s AS float8)
        + least((j.limits ->> 'disk_bytes')::float8 / :bytes_per_s, :upload_max_s)))
ORDER BY a.id LIMIT :most
""")  # noqa: S608  (a constant)

_UPLOAD: Final = {"bytes_per_s": float(INPUT_BYTES_PER_S), "upload_max_s": UPLOAD_MAX_S}

_WEB: Final = {"web_gap_s": WEB_GAP_S, "web_return_s": WEB_RETURN_S}

_REPORTED: Final = sa.text(f"""
SELECT a.id FROM attempts a WHERE a.state IN {_LIVE} AND a.reported_at IS NOT NULL ORDER BY a.reported_at LIMIT :most
""")  # noqa: S608

_END_ATTEMPT: Final = sa.text("""
UPDATE attempts SET state = :state, fault = :fault, reason = :reason, reason_detail = :detail, counted = :counted,
    ended_at = clock_timestamp() WHERE id = :id
""")

# What each attempt did, for the lines. A lost one counts up to the last sign of life; one that ended without a report, to its end.
_USES: Final = sa.text("""
SELECT a.id, p.owner_id, a.rate, a.limit_ms, a.state, a.fault, a.running_at, a.agent_ms, j.cancel_requested_at,
       CASE WHEN a.state = 'LOST' THEN greatest(a.renewed_at, c.created_at) ELSE coalesce(a.reported_at, a.ended_at, clock_timestamp()) END AS until,
       coalesce(c.ran_ms, 0) AS checkpoint_ms,
       EXISTS (SELECT FROM attempts t WHERE t.restore_attempt_id = a.id AND t.restore_failed) AS restore_failed
FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN providers p ON p.id = a.provider_id
LEFT JOIN LATERAL (SELECT k.ran_ms, k.created_at FROM checkpoints k WHERE k.attempt_id = a.id ORDER BY k.n DESC LIMIT 1) c ON true
WHERE a.job_id = :job ORDER BY a.number
""")

_CHARGE: Final = sa.text("""
UPDATE attempts a SET charge = l.gross, metered_ms = l.ms
FROM unnest(cast(:ids AS uuid[]), cast(:gross AS bigint[]), cast(:ms AS bigint[])) AS l (id, gross, ms)
WHERE a.id = l.id AND a.ended_at IS NOT NULL AND (a.charge, a.metered_ms) IS DISTINCT FROM (l.gross, l.ms)
""")

# The newest checkpoint over all attempts, unless the one it belongs to is known not to restore.
_RETRY: Final = sa.text("""
UPDATE jobs j SET state = 'PENDING', pending_at = clock_timestamp(), wait_until = clock_timestamp() + make_interval(secs => j.wait_s),
    operation = '', unplaceable = NULL, restore_attempt_id = c.attempt_id, restore_n = c.n
FROM (SELECT 1) one LEFT JOIN LATERAL (
    SELECT k.attempt_id, k.n FROM checkpoints k JOIN attempts a ON a.id = k.attempt_id
    WHERE a.job_id = :id AND NOT EXISTS (SELECT FROM attempts t WHERE t.restore_attempt_id = k.attempt_id AND t.restore_failed AND t.resumed_from = k.n)
    ORDER BY k.progress DESC, a.number DESC, k.n DESC LIMIT 1) c ON true
WHERE j.id = :id
""")

_END_JOB: Final = sa.text("""
UPDATE jobs SET state = :state, reason = :reason, reason_detail = :detail, ended_at = clock_timestamp(), operation = '',
    progress = CASE WHEN :state = 'COMPLETED' THEN 100 ELSE progress END WHERE id = :id
""")

# A waiting job that will not run: cancelled, not paid while its quote stood, or nothing matched in time. However short it waits, placement has looked at it
# (and said why not) before it is given up; only what placement cannot even plan is given up without that, somewhat later.
_IDLE: Final = """(state = 'PENDING' AND (cancel_requested_at IS NOT NULL
        OR wait_until < clock_timestamp() AND (unplaceable IS NOT NULL OR wait_until < clock_timestamp() - interval '30 seconds'))
    OR state IN ('DRAFT', 'QUOTED', 'AWAITING_FUNDS') AND cancel_requested_at IS NOT NULL
    OR state = 'AWAITING_FUNDS' AND wait_until <= clock_timestamp())"""
_IDLE_ENDS: Final = sa.text(f"SELECT id FROM jobs WHERE {_IDLE} ORDER BY id LIMIT :most")  # noqa: S608  (a constant)
_LOCK_IDLE: Final = sa.text(f"""
SELECT id, owner_id, state, quote_id, cancel_requested_at IS NOT NULL AS cancelled, unplaceable FROM jobs
WHERE id = :id AND {_IDLE} FOR UPDATE SKIP LOCKED
""")  # noqa: S608

# What the sweeper's absence adds to a moment: as long as it was away, and never more than if it were granted anew now.
_AWAY: Final = (
    sa.text("""
UPDATE nodes SET last_status_at = greatest(last_status_at, least(clock_timestamp(), last_status_at + make_interval(secs => :gap_s)))
WHERE state = 'online'
"""),
    sa.text(f"""
UPDATE attempts SET renewed_at = greatest(renewed_at, least(clock_timestamp(), renewed_at + make_interval(secs => :gap_s))),
    start_deadline_at = greatest(start_deadline_at, least(start_deadline_at + make_interval(secs => :gap_s),
                                                          clock_timestamp() + (start_deadline_at - coalesce(accepted_at, created_at))))
WHERE state IN {_LIVE}
"""),  # noqa: S608
    sa.text("""
UPDATE jobs SET wait_until = greatest(wait_until, least(wait_until + make_interval(secs => :gap_s), clock_timestamp() + make_interval(secs => wait_s)))
WHERE state = 'PENDING'
"""),
)

# The database's clock was set back: what lies in its future now was just now, and what was due in a minute still is.
_SET_BACK: Final = (
    sa.text("UPDATE nodes SET last_status_at = clock_timestamp() WHERE last_status_at > clock_timestamp()"),
    sa.text(f"""
UPDATE attempts SET renewed_at = least(renewed_at, clock_timestamp()), start_deadline_at = start_deadline_at + make_interval(secs => :gap_s)
WHERE state IN {_LIVE}
"""),  # noqa: S608
    sa.text("UPDATE jobs SET wait_until = wait_until + make_interval(secs => :gap_s) WHERE state = 'PENDING'"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class IdleEnd:
    """A job without an attempt that ends: `cancelled`, or else not paid (AWAITING_FUNDS) or not matched in time."""

    job_id: UUID
    owner_id: UUID
    state: JobState
    quote_id: UUID | None
    cancelled: bool
    unplaceable: dict[str, Any] | None


class EndStore:
    """Ends of attempts and jobs over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, attempt_id: UUID) -> Live | None:
        """The attempt under the locks of its node, its job and itself."""
        if await self._connection.scalar(_LOCK_NODE, {"id": attempt_id}) is None:
            return None
        row = (await self._connection.execute(_LOCK, {"id": attempt_id, **_UPLOAD, **_WEB})).one_or_none()
        if row is None:
            return None
        values = dict(row._mapping)
        return Live(
            **{
                **values,
                "job_state": JobState(row.job_state),
                "state": AttemptState(row.state),
                "rate": Qu(row.rate),
            }
        )

    async def reported(self, *, most: int) -> list[UUID]:
        """Attempts whose end was reported and not concluded."""
        return [row.id for row in await self._connection.execute(_REPORTED, {"most": most})]

    async def overdue(self, rules: Rules, *, grace_s: float, most: int) -> list[UUID]:
        """Attempts that may be over without a report."""
        values = {
            "ttl_s": rules.lease_ttl_s,
            "cancel_s": rules.cancel_deadline_s,
            "grace_s": grace_s,
            **_UPLOAD,
            "most": most,
        }
        return [row.id for row in await self._connection.execute(_OVERDUE, values)]

    async def idle(self, *, most: int) -> list[UUID]:
        """Jobs without an attempt that may end now."""
        return [row.id for row in await self._connection.execute(_IDLE_ENDS, {"most": most})]

    async def lock_idle(self, job_id: UUID) -> IdleEnd | None:
        """Such a job, locked; None when it ends no more, or somebody else has it."""
        r = (await self._connection.execute(_LOCK_IDLE, {"id": job_id})).one_or_none()
        return None if r is None else IdleEnd(r.id, r.owner_id, JobState(r.state), r.quote_id, r.cancelled, r.unplaceable)

    async def end_attempt(self, attempt_id: UUID, **values: Any) -> None:
        """Write the terminal row (the parameters of `_END_ATTEMPT`)."""
        await self._connection.execute(_END_ATTEMPT, {"id": attempt_id, **values})

    async def uses(self, job_id: UUID) -> tuple[list[Use], Qu]:
        """What each attempt of the job did, oldest first, and what its escrow was funded with."""
        rows = await self._connection.execute(_USES, {"job": job_id})
        uses = [
            Use(
                attempt=str(r.id),
                payee=r.owner_id,
                rate=Qu(r.rate),
                limit_ms=r.limit_ms,
                end=AttemptEnd(r.state) if AttemptState(r.state).final else AttemptEnd.ALIVE,
                fault=Fault(r.fault) if r.fault else Fault.NONE,
                running_at=r.running_at,
                until=r.until,
                agent_ms=r.agent_ms,
                cancel_requested_at=r.cancel_requested_at,
                checkpoint_ms=r.checkpoint_ms,
                restore_failed=r.restore_failed,
            )
            for r in rows
        ]
        funded = await self._connection.scalar(sa.text("SELECT funded FROM escrows WHERE id = :job"), {"job": job_id})
        return uses, Qu(int(funded or 0))

    async def charge(self, lines: Sequence[Line]) -> None:
        """Write what each ended attempt was metered for and costs."""
        values = {
            "ids": [UUID(line.line) for line in lines],
            "gross": [line.gross for line in lines],
            "ms": [line.metered_ms for line in lines],
        }
        await self._connection.execute(_CHARGE, values)

    async def retry(self, job_id: UUID) -> None:
        """The job waits again; its next attempt's checkpoint is chosen here."""
        await self._connection.execute(_RETRY, {"id": job_id})

    async def end_job(self, job_id: UUID, state: JobState, reason: str, detail: str) -> None:
        """The job is final."""
        await self._connection.execute(_END_JOB, {"id": job_id, "state": state.value, "reason": reason, "detail": detail})

    async def renew_generation(self, node_id: UUID) -> None:
        """The node's desired state has changed."""
        await self._connection.execute(sa.text("UPDATE nodes SET generation = generation + 1 WHERE id = :id"), {"id": node_id})

    async def beat(self, *, gap_max_s: float) -> float:
        """Note that the sweeper is alive. A pause longer than `gap_max_s` is added to every lease, deadline and heartbeat,
        none of which then lasts longer than one that begins now. A clock that was set back by more makes none of them longer.

        Returns: the seconds that were added, 0 normally, less than 0 for a clock that was set back.
        """
        gap = await self._connection.scalar(
            sa.text("""INSERT INTO sweeper_beats AS b (name, at) VALUES ('sweeper', clock_timestamp())
                       ON CONFLICT (name) DO UPDATE SET at = clock_timestamp(), gap_s = extract(epoch FROM clock_timestamp() - b.at)
                       RETURNING gap_s""")
        )
        if not gap or abs(gap) <= gap_max_s:
            return 0.0
        for change in _AWAY if gap > 0 else _SET_BACK:
            await self._connection.execute(change, {"gap_s": float(gap)})
        return float(gap)
