"""SQL of placement: what waits, what is offered, and the one transaction that assigns."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import MS_PER_HOUR, Qu
from qubix.market.model import Needs
from qubix.market.query import model_key
from qubix.scheduling.model import LIMIT_MS_MIN, WEB_GAP_S, Rules
from qubix.scheduling.placement import Candidate, Wanted

# Nodes that just lost or declined the job are barred for a while, and taken afterwards only if there is no other: shortly where
# the loss was the platform's (the Ray head died, the web layer was away), for the node is well then. The bar lasts at most
# half as long as the job waits: where there is no other, it must not wait for nothing.
_WAITING: Final = sa.text("""
SELECT j.id, j.owner_id, j.needs, j.rate_max, j.asset, j.offer_id, j.quote_id, q.offer_id AS quote_offer_id, j.unplaceable, j.fence,
       j.pending_at, e.funded, (SELECT coalesce(sum(a.charge), 0) FROM attempts a WHERE a.job_id = j.id)::bigint AS spent,
       ARRAY(SELECT DISTINCT a.node_id FROM attempts a WHERE a.job_id = j.id AND a.fault IN ('provider', 'platform')
             AND a.ended_at > clock_timestamp() - make_interval(secs => least(j.wait_s / 2.0::float8,
                 CASE WHEN a.counted AND a.fault = 'provider' THEN cast(:lost_bar_s AS float8) ELSE cast(:declined_bar_s AS float8) END))) AS barred,
       ARRAY(SELECT DISTINCT a.node_id FROM attempts a WHERE a.job_id = j.id AND a.fault IN ('provider', 'platform')) AS wary
FROM jobs j JOIN escrows e ON e.id = j.id AND e.state = 'LOCKED' LEFT JOIN quotes q ON q.id = j.quote_id
WHERE j.state = 'PENDING' AND j.cancel_requested_at IS NULL
  AND (cast(:at AS timestamptz) IS NULL OR (j.pending_at, j.id) > (:at, cast(:id AS uuid)))
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
     WHEN EXISTS (SELECT FROM node_windows w WHERE w.node_id = n.id) AND NOT (node_window(n.id, clock_timestamp())).is_open THEN 'outside its hours'
     ELSE '' END
"""  # noqa: S608  (a constant)

_OFFERS: Final = f"""
SELECT o.id, o.node_id, n.provider_id, n.name, o.model, n.region, o.price_per_hour, o.asset, o.tflops, o.verified, o.reliability,
       n.ram_bytes, n.cpu_cores, {_EXCUSE} AS excuse
FROM offers o JOIN nodes n ON n.id = o.node_id WHERE n.state <> 'left' {{these}} ORDER BY o.price_per_hour, o.id
"""  # noqa: S608  (a constant)
_ALL_OFFERS: Final = sa.text(_OFFERS.format(these=""))
_THESE_OFFERS: Final = sa.text(_OFFERS.format(these="AND o.id = ANY(cast(:ids AS uuid[]))"))

# Where the best of a job's offers must be: those that take work, have room, and cost least, in placement's own order. The offers'
# rows carry what is asked (market.sql keeps them), so the index is read from its cheap end until there are enough.
_SHORTLIST: Final = f"""
SELECT o.id FROM offers o JOIN nodes n ON n.id = o.node_id
WHERE o.listed AND o.gpus_free > 0 AND o.gpus_free >= :gpus AND o.asset = :asset AND o.price_per_hour <= :price_max AND {{wants}} {_EXCUSE} = ''
ORDER BY o.price_per_hour, o.gpus_free, o.id LIMIT :most
"""  # noqa: S608  (constants)
_WANTS: Final = {
    "gpu_models": "o.model_key = ANY(cast(:gpu_models AS text[]))",
    "vram_bytes": "o.vram_bytes >= :vram_bytes",
    "tflops": "(o.tflops = 0 OR o.tflops >= :tflops)",
    "ram_bytes": "o.ram_bytes >= :ram_bytes",
    "cpu_cores": "o.cpu_cores >= :cpu_cores",
    "regions": "EXISTS (SELECT FROM unnest(cast(:regions AS text[])) v WHERE o.region = v OR starts_with(o.region, v || '-'))",
    "reliability_min": "o.reliability >= :reliability_min",
    "verified": "o.verified = :verified",
}
# What is looked at whatever it costs: the job's quote and the offer that it names, the nodes kept for it, devices that it holds.
_OWN: Final = sa.text("""
SELECT id FROM offers WHERE id = ANY(cast(:offers AS uuid[])) OR node_id = ANY(cast(:nodes AS uuid[])) OR node_id IN (
    SELECT d.node_id FROM device_leases l JOIN devices d ON d.id = l.device_id WHERE l.holder_id = ANY(cast(:holders AS uuid[])))
""")

# Node before job: the order of locks everywhere. The node is judged again here, under its lock.
_LOCK_NODE: Final = sa.text(f"SELECT n.id FROM nodes n WHERE n.id = :node AND {_EXCUSE} = '' FOR NO KEY UPDATE OF n")  # noqa: S608
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


Place = tuple[dt.datetime, UUID]
"""In the queue: since when the job waits, and its id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A PENDING job as the planner reads it, what its owner was told last, and its place in the queue."""

    wanted: Wanted
    owner_id: UUID
    told: Mapping[str, Any] | None
    place: Place = (dt.datetime.min, UUID(int=0))


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

    async def waiting(self, rules: Rules, *, most: int, after: Place | None = None) -> list[Waiting]:
        """PENDING jobs, the one that waits longest first, behind this place in the queue."""
        at, job_id = after or (None, None)
        values = {"lost_bar_s": rules.lost_bar_s, "declined_bar_s": rules.declined_bar_s, "most": most, "at": at, "id": job_id}
        return [_waiting(row) for row in await self._connection.execute(_WAITING, values)]

    async def shortlist(self, wanted: Sequence[Wanted], rules: Rules) -> list[UUID]:
        """Offers among which each of these jobs finds what it would find in the whole market, as fresh as the offers' rows are.

        Each job changes one offer at most, and passes over its wary and barred nodes: one offer more than all of these together
        is enough of each kind of need. (A node whose devices of one model differ in memory is known by its smallest.)
        """
        passed = {node_id for job in wanted for node_id in job.barred | job.wary}
        found: set[UUID] = set()
        for asks in {_asks(job) for job in wanted if job.offer_id is None}:
            values = dict(asks)
            wants = "".join(f"{_WANTS[name]} AND " for name in _WANTS if name in values)
            statement = sa.text(_SHORTLIST.format(wants=wants))
            values |= {name: list(values[name]) for name in ("gpu_models", "regions") if name in values}
            values |= {"silence_s": rules.node_silence_s, "most": len(wanted) + len(passed) + 1}
            found.update(await self._connection.scalars(statement, values))
        own = {
            "offers": [offer for job in wanted for offer in (job.offer_id, job.quote_offer_id) if offer is not None],
            "nodes": [job.reserved_node_id for job in wanted if job.reserved_node_id is not None],
            "holders": [holder for job in wanted for holder in (job.quote_id, job.job_id) if holder is not None],
        }
        found.update(await self._connection.scalars(_OWN, own))
        return sorted(found)

    async def offers(self, ids: Sequence[UUID] | None, rules: Rules) -> list[Candidate]:
        """These offers (None: all), the cheapest first, without their devices."""
        values = {"silence_s": rules.node_silence_s}
        if ids is None:
            return [_candidate(row) for row in await self._connection.execute(_ALL_OFFERS, values)]
        return [_candidate(row) for row in await self._connection.execute(_THESE_OFFERS, {**values, "ids": list(ids)})]

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


def _asks(job: Wanted) -> frozenset[tuple[str, Any]]:
    """The parameters of `_SHORTLIST` that a job fills; jobs that ask the same share one reading."""
    needs = job.needs
    price_max = min(job.rate_max // needs.gpus, job.rate_max if needs.price_max is None else needs.price_max)
    if job.left is not None:
        price_max = min(price_max, max(0, job.left) * MS_PER_HOUR // (LIMIT_MS_MIN * needs.gpus))
    asks: dict[str, Any] = {
        "gpu_models": tuple(sorted({model_key(name) for name in needs.gpu_models})),
        "vram_bytes": needs.vram_bytes,
        "tflops": needs.tflops,
        "ram_bytes": needs.ram_bytes,
        "cpu_cores": needs.cpu_cores,
        "regions": tuple(region.lower() for region in needs.regions),
    }
    asks = {name: value for name, value in asks.items() if value}
    asks |= {"reliability_min": needs.reliability_min} if needs.reliability_min is not None else {}
    asks |= {"verified": needs.verified} if needs.verified is not None else {}
    return frozenset({**asks, "gpus": needs.gpus, "asset": job.asset, "price_max": price_max}.items())


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
    return Waiting(wanted, row.owner_id, told, (row.pending_at, row.id))


def _candidate(row: sa.Row[Any]) -> Candidate:
    return Candidate(
        offer_id=row.id,
        node_id=row.node_id,
        provider_id=row.provider_id,
        node_name=row.name,
        model=row.model,
        region=row.region,
        price_per_hour=Qu(row.price_per_hour),
        asset=row.asset,
        slots=(),
        takes_work=row.excuse == "",
        excuse=row.excuse,
        ram_bytes=row.ram_bytes,
        cpu_cores=row.cpu_cores,
        tflops=row.tflops,
        verified=row.verified,
        reliability=row.reliability,
    )
