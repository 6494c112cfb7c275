"""Where the heartbeats of all of a replica's sessions meet, and go to the database together.

A heartbeat alone is a transaction with a commit and five statements or more; among others it is one more row in each of them
(`python -m benchmarks.heartbeats` prints what it costs). Nobody waits for a routine beat, so each waits up to LINGER_S for
company. What an agent has news in goes by itself, at once (serve_app/agents.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from qubix.bootstrap import Resources, scope
from qubix.kernel.lanes import Lanes
from qubix.scheduling.beats import Received
from qubix.scheduling.sessions import SessionOver
from qubix.scheduling.store import Beat
from serve_app.errors import is_database_trouble, is_passing_conflict

LINGER_S: Final = 0.025
"""A quarter of what a beat may take until it is in the database."""
BATCH_MAX: Final = 256
TRIES_MAX: Final = 4
RETRY_S: Final = 0.02

_Said = tuple[UUID, Beat]
_Answer = Received | Exception


class BeatLane:
    """One writer for the beats of one replica."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lanes: Lanes[_Said, _Answer] = Lanes(self._store, batch_max=BATCH_MAX, linger_s=LINGER_S)

    async def store(self, node: UUID, beat: Beat) -> Received:
        """Store one beat with whatever others there are; returns after the commit.

        Raises: SessionOver; what the database said, where it refuses this very beat, or is away.
        """
        answer = await self._lanes.submit((node, beat))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _store(self, said: Sequence[_Said]) -> list[_Answer]:
        """One transaction. Raises: where a beat cannot be stored; the lane then stores each by itself, and that one fails alone."""
        for tries in range(1, TRIES_MAX + 1):
            try:
                return await self._commit(said)
            except Exception as error:
                if is_passing_conflict(error) and tries < TRIES_MAX:
                    await asyncio.sleep(RETRY_S * tries)
                elif is_database_trouble(error):
                    return [error] * len(said)  # asking again for each of them would not help
                else:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _commit(self, said: Sequence[_Said]) -> list[_Answer]:
        answers: list[_Answer] = []
        rounds = list(_rounds(said))
        async with scope(self._resources) as s:
            if len(rounds) > 1:
                await s.beats.lock([node for node, _ in said])
            for beats in rounds:
                answers += [received or SessionOver() for received in await s.beats.take(beats)]
        return answers


def _rounds(said: Sequence[_Said]) -> Iterator[Sequence[_Said]]:
    """The beats in their order, cut where a node comes a second time: two sessions of it may be open for a moment."""
    begin, nodes = 0, set[UUID]()
    for end, (node, _) in enumerate(said):
        if node in nodes:
            yield said[begin:end]
            begin, nodes = end, set()
        nodes.add(node)
    if said:
        yield said[begin:]
