"""Durable events, delivered in order of position: one reader per web replica, one cursor per subscription."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Protocol

from qubix.live.outlet import Outlet
from qubix.live.topics import Topic

if TYPE_CHECKING:
    from qubix.postgres.outbox import Published

BATCH_MAX: Final = 500
POLL_S: Final = 1.0
"""How often the feed looks without being woken: a lost NOTIFY costs this much, not an event."""
FAILURE_PAUSE_S: Final = 1.0
REMEMBERED_MAX: Final = 4_096


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What can still be read: positions from `oldest` to `newest`; both 0 where nothing was ever published."""

    oldest: int
    newest: int


class EventReader(Protocol):
    """Reads published events; each call is a short transaction of its own."""

    async def bounds(self) -> Bounds:
        """The range of positions that is retained."""
        ...

    async def after(self, position: int, limit: int) -> list[Published]:
        """Events behind a position, in order."""
        ...

    async def matching(self, topics: Sequence[str], *, after: int, upto: int, limit: int) -> list[Published]:
        """Events of any of the topics in (after, upto], in order."""
        ...


OpenReader = Callable[[], AbstractAsyncContextManager[EventReader]]


class Resync(Exception):
    """The asked position is no longer (or never was) readable: the client must take new snapshots, then follow from `position`."""

    def __init__(self, position: int) -> None:
        super().__init__(f"resync from {position}")
        self.position = position


@dataclasses.dataclass(slots=True)
class _Subscription:
    topic: Topic
    since: int


class _Sent:
    """The positions that one outlet has had; what lies above the highest needs no search."""

    def __init__(self) -> None:
        self._highest = 0
        self._recent: collections.deque[int] = collections.deque(maxlen=REMEMBERED_MAX)

    def is_new(self, position: int) -> bool:
        if position <= self._highest and position in self._recent:
            return False
        self._highest = max(self._highest, position)
        self._recent.append(position)
        return True


class Feed:
    """Delivers events to the outlets of one replica.

    Args: open_reader, gives an EventReader for one short read.
    """

    def __init__(self, open_reader: OpenReader) -> None:
        self._open_reader = open_reader
        self._by_topic: dict[str, dict[Outlet, _Subscription]] = {}
        self._sent: dict[Outlet, _Sent] = {}
        self._due = asyncio.Event()
        self.position = 0
        """All events up to here were delivered to whoever was subscribed."""

    def wake(self) -> None:
        """New positions may exist."""
        self._due.set()

    async def start(self) -> None:
        """Begin at the newest event: what is older is read by each subscription for itself."""
        async with self._open_reader() as reader:
            self.position = (await reader.bounds()).newest

    async def run(self) -> None:
        """Deliver until cancelled; database trouble only delays."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._due.wait()
            self._due.clear()
            try:
                if await self._advance() == BATCH_MAX:
                    self._due.set()
            except Exception:
                await asyncio.sleep(FAILURE_PAUSE_S)

    async def _advance(self) -> int:
        async with self._open_reader() as reader:
            events = await reader.after(self.position, BATCH_MAX)
        for event in events:
            self._deliver(event)
            self.position = event.position
        return len(events)

    def _deliver(self, event: Published) -> None:
        shown_to: dict[Outlet, list[str]] = {}
        for name in event.topics:
            for outlet, subscription in self._by_topic.get(name, {}).items():
                if event.position > subscription.since:
                    shown_to.setdefault(outlet, []).append(subscription.topic.shown)
        if not shown_to:
            return
        tail = _tail(event)
        for outlet, shown in shown_to.items():
            self._send(outlet, event.position, shown, tail)

    def _send(self, outlet: Outlet, position: int, shown: Sequence[str], tail: str) -> None:
        if not self._sent.setdefault(outlet, _Sent()).is_new(position):
            return
        outlet.offer_durable(f'{{"t":"event","topics":{json.dumps(list(shown))},{tail}')

    async def subscribe(self, outlet: Outlet, topics: Sequence[Topic], from_position: int | None) -> int:
        """Send the topics' events behind `from_position` (None: from now on), without a gap and without a repeat.

        Returns: the position from which live delivery goes on.
        Raises: Resync where the position is past retention, or from another database.
        """
        return await self.follow(outlet, topics, await self.begin(from_position))

    async def begin(self, from_position: int | None) -> int:
        """The position that a subscription from here starts behind. Raises: as subscribe."""
        position = self.position if from_position is None else from_position
        async with self._open_reader() as reader:
            bounds = await reader.bounds()
        if position + 1 < bounds.oldest or position > bounds.newest:
            raise Resync(bounds.newest)
        return position

    async def follow(self, outlet: Outlet, topics: Sequence[Topic], position: int) -> int:
        """What subscribe does once its position is known to be readable."""
        by_name = {topic.name: topic for topic in topics}
        while position < (upto := self.position):
            async with self._open_reader() as reader:
                events = await reader.matching(list(by_name), after=position, upto=upto, limit=BATCH_MAX)
            for event in events:
                self._send(outlet, event.position, [by_name[name].shown for name in event.topics if name in by_name], _tail(event))
            if len(events) == BATCH_MAX:
                position = events[-1].position
                await outlet.drained()
            else:
                position = upto
        # No await between the comparison above and this: what comes later is delivered by the loop.
        for topic in topics:
            self._by_topic.setdefault(topic.name, {})[outlet] = _Subscription(topic, position)
        return position

    def unsubscribe(self, outlet: Outlet, topic: Topic | None = None) -> None:
        """Stop one topic, or all; then the outlet is forgotten."""
        for name in [topic.name] if topic else list(self._by_topic):
            outlets = self._by_topic.get(name, {})
            outlets.pop(outlet, None)
            if not outlets:
                self._by_topic.pop(name, None)
        if topic is None:
            self._sent.pop(outlet, None)


def _tail(event: Published) -> str:
    members = {
        "position": event.position,
        "event": event.type,
        "subject_id": event.subject_id,
        "at": event.created_at.isoformat(),
        "payload": event.payload,
    }
    return json.dumps(members, separators=(",", ":"), default=str)[1:]


@contextlib.asynccontextmanager
async def same_reader(reader: EventReader) -> AsyncIterator[EventReader]:
    """A reader that needs no opening."""
    yield reader
