"""The live hub's relay as one Ray actor in the web layer's cluster: a thin shell around `qubix.live.hub.Board`.

Each web replica pushes what its agents told it and pulls what the others pushed, from a cursor of its own; a replica that
falls behind misses messages and slows nobody. What must not be lost goes through the outbox, never through here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from qubix.live.hub import Batch, Board, Volatile

RELAY_NAME: Final = "live-relay"
CALL_TIMEOUT_S: Final = 5.0


class RayRelay:
    """Relay over the actor, which is found, or made on a head machine, at the first call and again after it was lost."""

    def __init__(self, find: Callable[[], Any] | None = None) -> None:
        """Args: find, blocking, gives the actor's handle; needs `ray.init` done unless given."""
        self._find = find or find_relay
        self._actor: Any = None

    async def push(self, origin: str, messages: Sequence[Volatile]) -> None:
        await self._call("push", CALL_TIMEOUT_S, origin, tuple(messages))

    async def pull(self, after: int, wait_s: float) -> tuple[int, list[Batch]]:
        cursor, batches = await self._call("pull", wait_s + CALL_TIMEOUT_S, after, wait_s)
        return cursor, batches

    async def recent(self, topic: str) -> list[Volatile]:
        found: list[Volatile] = await self._call("recent", CALL_TIMEOUT_S, topic)
        return found

    async def _call(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        if self._actor is None:
            self._actor = await asyncio.to_thread(self._find)
        try:
            async with asyncio.timeout(timeout_s):
                return await getattr(self._actor, method).remote(*arguments)
        except Exception:
            self._actor = None
            raise


def find_relay() -> Any:
    """The relay's actor, made if there is none; pinned to head machines, so that no provider's node carries it."""
    import ray

    from qubix.fabric.agent_actor import NAMESPACE
    from qubix.fabric.head import HEAD_RESOURCE

    actor: Any = ray.remote
    remote = actor(num_cpus=0, resources={HEAD_RESOURCE: 0.001}, max_restarts=-1, max_concurrency=200)(Board)
    return remote.options(name=RELAY_NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True).remote()
