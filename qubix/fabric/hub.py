"""The live hub: one Ray actor in the web layer's cluster through which volatile news (metrics, log lines) reach all replicas.

It keeps the latest message of each topic and, for topics that are asked for it, a ring of the last 60. Each subscriber has
a bounded queue of its own; one that does not keep up loses what lies in between and continues with the latest per topic, and
never slows the others. What must not be lost does not go through here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final

HUB_NAME: Final = "live-hub"
RING_LENGTH: Final = 60
TOPICS_MAX: Final = 20_000
QUEUE_MAX: Final = 2_000
BATCH_MAX: Final = 500
SUBSCRIBER_IDLE_S: Final = 60.0

Message = dict[str, Any]


@dataclass
class _Subscriber:
    queue: deque[tuple[str, Message]] = field(default_factory=deque)
    event: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0
    pulled_at: float = 0.0


class LiveHub:
    """The hub itself; a plain class, so that tests need no Ray."""

    def __init__(self, *, queue_max: int = QUEUE_MAX, topics_max: int = TOPICS_MAX) -> None:
        """Args: queue_max, messages waiting per subscriber; topics_max, topics remembered (the longest silent is forgotten)."""
        self._queue_max, self._topics_max = queue_max, topics_max
        self._rings: OrderedDict[str, deque[Message]] = OrderedDict()
        self._subscribers: dict[str, _Subscriber] = {}

    async def publish(self, items: list[tuple[str, Message]]) -> int:
        """Take a batch of (topic, message). Returns: how many subscribers there are."""
        now = asyncio.get_running_loop().time()
        for name in [n for n, s in self._subscribers.items() if now - s.pulled_at > SUBSCRIBER_IDLE_S]:
            del self._subscribers[name]
        for topic, message in items:
            self._remember(topic, message)
        for subscriber in self._subscribers.values():
            subscriber.queue.extend(items)
            if len(subscriber.queue) > self._queue_max:
                self._drop_to_latest(subscriber)
            subscriber.event.set()
        return len(self._subscribers)

    async def pull(self, subscriber: str, wait_s: float = 10.0) -> tuple[list[tuple[str, Message]], int]:
        """The next messages of all topics, at most BATCH_MAX; waits for the first. The first pull subscribes.

        Returns: the messages in order, and how many were dropped since the last pull.
        """
        loop = asyncio.get_running_loop()
        mine = self._subscribers.setdefault(subscriber, _Subscriber())
        mine.pulled_at = loop.time() + wait_s
        if not mine.queue:
            mine.event.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await mine.event.wait()
            except TimeoutError:
                pass
        mine.pulled_at = loop.time()
        batch = [mine.queue.popleft() for _ in range(min(BATCH_MAX, len(mine.queue)))]
        dropped, mine.dropped = mine.dropped, 0
        return batch, dropped

    async def latest(self, topics: list[str]) -> dict[str, Message]:
        """The latest message of each topic that has one."""
        return {t: self._rings[t][-1] for t in topics if t in self._rings}

    async def ring(self, topic: str) -> list[Message]:
        """The last messages of a topic, at most 60, oldest first."""
        return list(self._rings.get(topic, ()))

    async def forget(self, subscriber: str) -> None:
        """A replica is going."""
        self._subscribers.pop(subscriber, None)

    def _remember(self, topic: str, message: Message) -> None:
        self._rings.setdefault(topic, deque(maxlen=RING_LENGTH)).append(message)
        self._rings.move_to_end(topic)
        while len(self._rings) > self._topics_max:
            self._rings.popitem(last=False)

    def _drop_to_latest(self, subscriber: _Subscriber) -> None:
        latest: OrderedDict[str, Message] = OrderedDict()
        for topic, message in subscriber.queue:
            latest[topic] = message
            latest.move_to_end(topic)
        kept = list(latest.items())[-self._queue_max :]
        subscriber.dropped += len(subscriber.queue) - len(kept)
        subscriber.queue = deque(kept)


class RayHub:
    """The hub as a replica or the controller uses it: the same methods over the one actor, found or made on a head machine."""

    def __init__(self) -> None:
        """Needs `ray.init` done."""
        import ray

        from qubix.fabric.agent_actor import NAMESPACE
        from qubix.fabric.head import HEAD_RESOURCE

        actor: Any = ray.remote
        remote = actor(num_cpus=0, resources={HEAD_RESOURCE: 0.001}, max_restarts=-1, max_concurrency=200)(LiveHub)
        self._actor: Any = remote.options(name=HUB_NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True).remote()

    async def publish(self, items: list[tuple[str, Message]]) -> int:
        return int(await self._actor.publish.remote(items))

    async def pull(self, subscriber: str, wait_s: float = 10.0) -> tuple[list[tuple[str, Message]], int]:
        batch, dropped = await self._actor.pull.remote(subscriber, wait_s)
        return batch, dropped

    async def latest(self, topics: list[str]) -> dict[str, Message]:
        found: dict[str, Message] = await self._actor.latest.remote(topics)
        return found

    async def ring(self, topic: str) -> list[Message]:
        found: list[Message] = await self._actor.ring.remote(topic)
        return found

    async def forget(self, subscriber: str) -> None:
        await self._actor.forget.remote(subscriber)
