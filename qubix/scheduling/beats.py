"""Heartbeats and measurements: most of what agents say, and the same few questions for each of them.

So they are judged in sets: the web layer gathers the beats of its sessions for a moment (serve_app/agents_beats.py), and one
transaction asks each question once for all of them. The rules are those of a single frame (architecture, 4b): it counts only
if its session is the current one, a status only if its seq grows, and the database judges both under the node's lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from typing import TYPE_CHECKING
from uuid import UUID

from qubix.agent.protocol import Desired, Down, NodeSample, Status, Stop
from qubix.kernel.clock import Clock
from qubix.kernel.events import Event, EventType
from qubix.live.hub import Volatile

if TYPE_CHECKING:
    from qubix.capacity.service import CapacityService
    from qubix.providers.service import ProvidersService
    from qubix.scheduling.beat_store import Beat, BeatingNode, BeatStore

_AWAY = ("registering", "offline")


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """What to do after the commit: frames for the agent, volatile messages for the live hub."""

    answers: tuple[Down, ...] = ()
    live: tuple[Volatile, ...] = ()


class BeatsService:
    """Takes beats.

    Args: store, providers and capacity over the transaction's connection; desired, the desired state of nodes; clock, stamps
        volatile messages; tell, adds an event; wake, after the commit.
    """

    def __init__(
        self,
        store: BeatStore,
        *,
        desired: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Desired]]],
        providers: ProvidersService,
        capacity: CapacityService,
        clock: Clock,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._desired = desired
        self._providers = providers
        self._capacity = capacity
        self._clock = clock
        self._tell = tell
        self._wake = wake

    async def take(self, beats: Sequence[tuple[UUID, Beat]]) -> list[Received | None]:
        """Judge the beats of different nodes in one transaction.

        A status renews the leases of the attempts that it names, ends quarantines, and is answered with a `stop` for every
        attempt alive on the node that should not be, then the desired state. One with an old seq changes nothing.

        Args: beats, (node, frame), a node at most once.
        Returns: per beat, in order, what to do after the commit; None where another session speaks for the node: nothing of it counts.
        """
        nodes = await self._store.lock([node for node, _ in beats])
        current = [(nodes[node], beat) for node, beat in beats if node in nodes and nodes[node].session == beat.session]
        fresh = [(node, beat) for node, beat in current if not isinstance(beat, Status) or beat.seq > node.session_seq]
        answered = {node.id: Received() for node, _ in current}
        if fresh:
            answered |= await self._take(fresh)
        return [answered.get(node) for node, _ in beats]

    async def lock(self, nodes: Collection[UUID]) -> None:
        """Lock the nodes ahead of everything else, where more than one call of `take`, or frames of attempts, share the transaction."""
        await self._store.lock(nodes)

    async def _take(self, beats: Sequence[tuple[BeatingNode, Beat]]) -> dict[UUID, Received]:
        await self._store.lock_offers([node.id for node, _ in beats])
        await self._store.note([(node.id, beat) for node, beat in beats])
        statuses = [(node, beat) for node, beat in beats if isinstance(beat, Status)]
        renewed = await self._store.renew([(node.id, attempt) for node, beat in statuses for attempt in beat.alive])
        if statuses:
            await self._greet(statuses)
        samples = {node.id: beat.sample for node, beat in beats if beat.sample is not None}
        measured = await self._providers.record_samples(samples) if samples else {}
        jobs = await self._store.jobs([node.id for node, _ in beats])
        # What a node without attempts should run needs no question, unless its heat has just moved its generation.
        asked = [node.id for node, _ in statuses if node.id in jobs or (node.id in measured and measured[node.id].moved)]
        desired = dict(await self._desired(asked)) if asked else {}
        return {
            node.id: Received(
                answers=_answers(node, beat, renewed, desired.get(node.id)),
                live=self._live(node, beat.sample, measured[node.id].devices, jobs.get(node.id, {})) if beat.sample is not None else (),
            )
            for node, beat in beats
        }

    async def _greet(self, statuses: Sequence[tuple[BeatingNode, Status]]) -> None:
        freed = await self._capacity.release_quarantines(
            [(node.id, status.generation, [attempt.id for attempt in status.alive]) for node, status in statuses]
        )
        back = [node for node, _ in statuses if node.state in _AWAY]
        for node in back:
            members = {"node_id": str(node.id), "provider_id": str(node.provider_id), "name": node.name, "state": "online"}
            self._tell(Event(EventType.PROVIDER_STATUS_CHANGED, ("marketplace", f"provider:{node.provider_id}"), node.id, members))
        if freed or back:
            self._wake("jobs", "")

    def _live(self, node: BeatingNode, sample: NodeSample, present: Set[str], jobs: Mapping[str, Sequence[UUID]]) -> tuple[Volatile, ...]:
        at = self._clock.now().timestamp()
        return tuple(
            Volatile(
                type=EventType.GPU_METRICS_UPDATE,
                topics=(f"provider:{node.provider_id}", *(f"job:{job}" for job in jobs.get(device.uuid, ()))),
                subject=f"device:{device.uuid}",
                payload={
                    "node_id": str(node.id),
                    "node_at": sample.node_at,
                    "cpu_pct": sample.cpu_pct,
                    "ram_used_bytes": sample.ram_used_bytes,
                    **device.model_dump(),
                },
                at=at,
            )
            for device in sample.devices
            if device.uuid in present
        )


def _answers(node: BeatingNode, beat: Beat, renewed: set[tuple[UUID, UUID]], desired: Desired | None) -> tuple[Down, ...]:
    if not isinstance(beat, Status):
        return ()
    stops = [
        Stop(attempt=attempt.id, fence=attempt.fence, reason="not this attempt's time any more")
        for attempt in beat.alive
        if (node.id, attempt.id) not in renewed
    ]
    return (*stops, desired or Desired(session=beat.session, generation=node.generation, attempts=()))
