"""SQL of heartbeats, for the nodes of many sessions at once: each statement costs the same round trip for one node or two hundred."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import AliveAttempt, Metrics, Status

Beat = Status | Metrics
"""A frame that says how a node is, and asks for nothing that another frame of its session waits for."""

_LIVE: Final = "('CREATED', 'ACCEPTED', 'RUNNING')"
_UUIDS: Final = pg.ARRAY(pg.UUID(as_uuid=True))

# In the order of ids, so that two replicas never wait for each other crosswise. Not FOR UPDATE: a row that merely refers to a node need not wait.
_LOCK: Final = sa.text("""
SELECT id, provider_id, name, state, session, session_seq, generation FROM nodes WHERE id = ANY (:nodes) ORDER BY id FOR NO KEY UPDATE
""").bindparams(sa.bindparam("nodes", type_=_UUIDS))

# A note writes the offers of each node (market.sql, offers_stay_fresh) in an order that the plan chooses; whoever refreshes offers locks them by id.
_LOCK_OFFERS: Final = sa.text("SELECT FROM offers WHERE node_id = ANY (:nodes) ORDER BY id FOR NO KEY UPDATE").bindparams(
    sa.bindparam("nodes", type_=_UUIDS)
)

# One new version of a node's row per beat, whatever the beat says; a seq of null is a measurement alone, which is no heartbeat.
_NOTE: Final = sa.text("""
UPDATE nodes n SET session_seq = coalesce(b.seq, n.session_seq), generation_seen = greatest(n.generation_seen, b.seen),
    last_status_at = CASE WHEN b.seq IS NULL THEN n.last_status_at ELSE clock_timestamp() END, socket_open = n.socket_open OR b.seq IS NOT NULL,
    metrics_at = CASE WHEN b.sampled AND n.state <> 'left' THEN clock_timestamp() ELSE n.metrics_at END,
    state = CASE WHEN b.seq IS NOT NULL AND n.state IN ('registering', 'offline') THEN 'online' ELSE n.state END
FROM unnest(cast(:nodes AS uuid[]), cast(:seqs AS bigint[]), cast(:seen AS bigint[]), cast(:sampled AS boolean[])) AS b (node, seq, seen, sampled)
WHERE n.id = b.node
""")

# A status renews exactly the attempts that it names with their fences, while they live. Its node's row is locked already.
_RENEW: Final = sa.text(f"""
UPDATE attempts a SET renewed_at = clock_timestamp()
FROM unnest(cast(:nodes AS uuid[]), cast(:ids AS uuid[]), cast(:fences AS bigint[])) AS s (node, id, fence)
WHERE a.id = s.id AND a.fence = s.fence AND a.node_id = s.node AND a.state IN {_LIVE} RETURNING a.node_id, a.id
""")  # noqa: S608  (a constant)

_JOBS: Final = sa.text(f"""
SELECT node_id, job_id, device_uuids FROM attempts WHERE node_id = ANY (:nodes) AND state IN {_LIVE}
""").bindparams(sa.bindparam("nodes", type_=_UUIDS))  # noqa: S608  (a constant)


@dataclasses.dataclass(frozen=True, slots=True)
class BeatingNode:
    """A node's session, locked."""

    id: UUID
    provider_id: UUID
    name: str
    state: str
    session: UUID | None
    session_seq: int
    generation: int


class BeatStore:
    """Heartbeats over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, nodes: Collection[UUID]) -> dict[UUID, BeatingNode]:
        """Lock these nodes' rows; those that there are."""
        return {row.id: BeatingNode(*row) for row in await self._connection.execute(_LOCK, {"nodes": list(nodes)})}

    async def lock_offers(self, nodes: Collection[UUID]) -> None:
        """Lock the offers of these nodes, which their notes will write, in the order in which everybody does."""
        await self._connection.execute(_LOCK_OFFERS, {"nodes": list(nodes)})

    async def note(self, beats: Sequence[tuple[UUID, Beat]]) -> None:
        """The nodes are alive, have seen these generations, were measured. Each node at most once."""
        await self._connection.execute(
            _NOTE,
            {
                "nodes": [node for node, _ in beats],
                "seqs": [beat.seq if isinstance(beat, Status) else None for _, beat in beats],
                "seen": [beat.generation if isinstance(beat, Status) else 0 for _, beat in beats],
                "sampled": [beat.sample is not None for _, beat in beats],
            },
        )

    async def renew(self, alive: Sequence[tuple[UUID, AliveAttempt]]) -> set[tuple[UUID, UUID]]:
        """Renew the leases of these attempts, each on the node that names it. Returns: (node, attempt) of those that live."""
        if not alive:
            return set()
        values = {
            "nodes": [node for node, _ in alive],
            "ids": [attempt.id for _, attempt in alive],
            "fences": [attempt.fence for _, attempt in alive],
        }
        return {(row.node_id, row.id) for row in await self._connection.execute(_RENEW, values)}

    async def jobs(self, nodes: Collection[UUID]) -> dict[UUID, dict[str, list[UUID]]]:
        """Per node that has a live attempt: the jobs on each of its devices, by the device's UUID."""
        found: dict[UUID, dict[str, list[UUID]]] = {}
        for row in await self._connection.execute(_JOBS, {"nodes": list(nodes)}):
            on_node = found.setdefault(row.node_id, {})
            for device in row.device_uuids:
                on_node.setdefault(device, []).append(row.job_id)
        return found
