"""SQL of placement: what waits, what is offered, and the one transaction that assigns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.capacity.model import DeviceUse
from qubix.kernel.money import Qu
from qubix.market.model import Needs
from qubix.scheduling.model import WEB_GAP_S, Rules
from qubix.scheduling.placement import Candidate, Slot, Wanted

# Nodes that just lost or declined the job are barred for a while, and taken afterwards only if there is no other. The bar
# lasts at most half as long as the job waits: where there is no other, it must not wait for nothing.
_WAITING: Final = sa.text("""
SELECT j.id, j.owner_id, j.needs, j.rate_max, j.asset, j.offer_id, j.quote_id, q.offer_id AS quote_offer_id, j.unplaceable, j.fence,
       e.funded, (SELECT coalesce(sum(a.charge), 0) FROM attempts a WHERE a.job_id = j.id)::bigint AS spent,
       ARRAY(SELECT DISTINCT a.node_id FROM attempts a WHERE a.job_id = j.id AND a.fault IN ('provider', 'platform')
             AND a.ended_at > clock_timestamp() - make_interval(secs => least(j.wait_s / 2.0::float8,
                 CASE WHEN a.counted THEN cast(:lost_bar_s AS float8) ELSE cast(:declined_bar_s AS float8) END))) AS barred,
       ARRAY(SELECT DISTINCT a.node_id FROM attempts a WHERE a.job_id = j.id AND a.fault IN ('provider', 'platform')) AS wary
FROM jobs j JOIN escrows e ON e.id = j.id AND e.state = 'LOCKED' LEFT JOIN quotes q ON q.id = j.quote_id
WHERE j.state = 'PENDING' AND j.cancel_requested_at IS NULL
ORDER BY j.pending_at, j.id LIMIT :most
""")

# Whatever was told of a node's socket: while no replica of the web layer lives, nothing reaches the node.
_EXCUSE: Final = f"""
CASE WHEN n.state <> 'online' THEN n.state
     WHEN (SELECT b.at < clock_timestamp() - interval '{WEB_GAP_S} seconds' FROM sweeper_beats b WHERE b.name = 'web') THEN 'web layer away'
     WHEN NOT n.socket_open OR n.session IS NULL THEN 'not connected'
     WHEN n.draining THEN 'draining'
     WHEN n.paused THEN 'paused'
     WHEN n.sandbox ->> 'ok' = 'no' THEN 'no sandbox: ' || coalesce(n.sandbox ->> 'reason', '')
     WHEN n.last_status_at < clock_timestamp() - make_interval(secs => :silence_s) THEN 'silent'
     WHEN n.metrics_at < clock_timestamp() - make_interval(secs => :silence_s) THEN 'stale'
     WHEN NOT (node_window(n.id, clock_timestamp())).is_open THEN 'outside its hours'
     ELSE '' END
"""  # noqa: S608  (a constant)

_OFFERS: Final = sa.text(f"""
SELECT o.id, o.node_id, n.provider_id, n.name, o.model, n.region, o.price_per_hour, o.asset, o.tflops, o.verified, o.reliability,
       n.ram_bytes, n.cpu_cores, {_EXCUSE} AS excuse
FROM offers o JOIN nodes n ON n.id = o.node_id WHERE n.state <> 'left' ORDER BY o.price_per_hour, o.id
""")  # noqa: S608  (a constant)

# Node before job: the order of locks everywhere. The node is judged again here, under its lock.
_LOCK_NODE: Final = sa.text(f"SELECT n.id FROM nodes n WHERE n.id = :node AND {_EXCUSE} = '' FOR UPDATE OF n")  # noqa: S608
_LOCK_JOB: Final = sa.text("""
SELECT j.id, j.owner_id, j.fence, j.duration_max_s, j.quote_id, j.restore_attempt_id, j.restore_n, j.progress,
       (SELECT coalesce(max(a.number), 0) FROM attempts a WHERE a.job_id = j.id) AS attempts,
       (SELECT e.funded FROM escrows e WHERE e.id = j.id AND e.state = 'LOCKED')
         - (SELECT coalesce(sum(a.charge), 0) FROM attempts a WHERE a.job_id = j.id)::bigint AS "left",
       (SELECT o.price_per_hour FROM offers o WHERE o.id = :offer) AS price_per_hour
FROM jobs j WHERE j.id = :job AND j.state = 'PENDING' AND j.cancel_requested_at IS NULL FOR UPDATE OF j SKIP LOCKED
""")
_ASSIGN_JOB: Final = sa.text("UPDATE jobs SET state = 'ASSIGNED', fence = fence + 1, unplaceable = NULL WHERE id = :id RETURNING fence")
_ADD_ATTEMPT: Final = sa.text("""
INSERT INTO attempts (id, job_id, number, fence, node_id, provider_id, offer_id, rate, limit_ms, state, device_uuids, start_deadline_at,
                      restore_attempt_id, resumed_from, progress)
VALUES (:id, :job_id, :number, :fence, :node_id, :provider_id, :offer_id, :rate, :limit_ms, 'CREATED', :device_uuids,
        clock_timestamp() + make_interval(secs => :start_deadline_s), :restore_attempt_id, :resumed_from,
        coalesce((SELECT c.progress FROM checkpoints c WHERE c.attempt_id = :restore_attempt_id AND c.n = :resumed_from), 0))
""").bindparams(sa.bindparam("device_uuids", type_=sa.ARRAY(sa.Text)))


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A PENDING job as the planner reads it, and what its owner was told last."""

    wanted: Wanted
    owner_id: UUID
    told: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """A PENDING job under the locks of its node and itself. Args: left, what its escrow still holds for it (None: not locked)."""

    job_id: UUID
    owner_id: UUID
    duration_max_s: int
    quote_id: UUID | None
    restore_attempt_id: UUID | None
    restore_n: int | None
    attempts: int
    left: Qu | None
    price_per_hour: Qu


class PlacementStore:
    """Placement over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def waiting(self, rules: Rules, *, most: int) -> list[Waiting]:
        """PENDING jobs, the one that waits longest first."""
        values = {"lost_bar_s": rules.lost_bar_s, "declined_bar_s": rules.declined_bar_s, "most": most}
        return [_waiting(row) for row in await self._connection.execute(_WAITING, values)]

    async def candidates(self, uses: Sequence[DeviceUse], rules: Rules) -> list[Candidate]:
        """All offers, the cheapest first, each with its devices."""
        slots: dict[tuple[UUID, str], list[Slot]] = {}
        for use in uses:
            slot = Slot(use.device_id, use.device_uuid, use.vram_bytes, use.holder_id, use.quarantined)
            slots.setdefault((use.node_id, use.model), []).append(slot)
        rows = await self._connection.execute(_OFFERS, {"silence_s": rules.node_silence_s})
        return [_candidate(row, tuple(slots.get((row.node_id, row.model), ()))) for row in rows]

    async def claim(self, job_id: UUID, *, node_id: UUID, offer_id: UUID, rules: Rules) -> Claimed | None:
        """Lock the node (if it still takes work) and the job (if it still waits and nobody has it)."""
        if await self._connection.scalar(_LOCK_NODE, {"node": node_id, "silence_s": rules.node_silence_s}) is None:
            return None
        row = (await self._connection.execute(_LOCK_JOB, {"job": job_id, "offer": offer_id})).one_or_none()
        if row is None:
            return None
        return Claimed(
            row.id,
            row.owner_id,
            row.duration_max_s,
            row.quote_id,
            row.restore_attempt_id,
            row.restore_n,
            row.attempts,
            None if row.left is None else Qu(row.left),
            Qu(row.price_per_hour),
        )

    async def assign(self, attempt: Mapping[str, Any]) -> int:
        """Raise the job's fence and insert its attempt (the parameters of `_ADD_ATTEMPT`). Returns the fence."""
        fence = await self._connection.scalar(_ASSIGN_JOB, {"id": attempt["job_id"]})
        await self._connection.execute(_ADD_ATTEMPT, {**attempt, "fence": fence})
        await self._connection.execute(sa.text("UPDATE nodes SET generation = generation + 1 WHERE id = :id"), {"id": attempt["node_id"]})
        return int(fence or 0)

    async def tell_unplaceable(self, job_id: UUID, why: Mapping[str, Any]) -> bool:
        """Note why a job still waits. Returns whether it still does."""
        rows = await self._connection.execute(
            sa.text("UPDATE jobs SET unplaceable = cast(:why AS jsonb) WHERE id = :id AND state = 'PENDING'"),
            {"id": job_id, "why": json.dumps(why)},
        )
        return rows.rowcount > 0


def _waiting(row: sa.Row[Any]) -> Waiting:
    told = row.unplaceable
    reserved = (told or {}).get("reserve_node_id")
    wanted = Wanted(
        job_id=row.id,
        needs=Needs.parse(row.needs),
        rate_max=Qu(row.rate_max),
        asset=row.asset,
        offer_id=row.offer_id,
        quote_id=row.quote_id,
        quote_offer_id=row.quote_offer_id,
        barred=frozenset(row.barred),
        wary=frozenset(row.wary),
        reserved_node_id=UUID(reserved) if reserved else None,
        left=Qu(row.funded - row.spent),
        spent=row.spent,
    )
    return Waiting(wanted, row.owner_id, told)


def _candidate(row: sa.Row[Any], slots: tuple[Slot, ...]) -> Candidate:
    return Candidate(
        offer_id=row.id,
        node_id=row.node_id,
        provider_id=row.provider_id,
        node_name=row.name,
        model=row.model,
        region=row.region,
        price_per_hour=Qu(row.price_per_hour),
        asset=row.asset,
        slots=slots,
        takes_work=row.excuse == "",
        excuse=row.excuse,
        ram_bytes=row.ram_bytes,
        cpu_cores=row.cpu_cores,
        tflops=row.tflops,
        verified=row.verified,
        reliability=row.reliability,
    )
