"""Durable events, delivered in order of position: one reader per web replica, one cursor per subscription."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
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
RECENT_MAX: Final = 1_000
"""Delivered events that are kept, so that ten thousand clients who come back together are answered without the database."""


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


class _Told:
    """An event with what clients are sent of it, encoded once for all that see it under the same names."""

    __slots__ = ("_tail", "_texts", "event")

    def __init__(self, event: Published) -> None:
        self.event = event
        self._tail = ""
        self._texts: dict[tuple[str, ...], str] = {}

    def text(self, shown: tuple[str, ...]) -> str:
        text = self._texts.get(shown)
        if text is None:
            self._tail = self._tail or _tail(self.event)
            text = self._texts[shown] = f'{{"t":"event","topics":{json.dumps(list(shown))},{self._tail}'
        return text


class Feed:
    """Delivers events to the outlets of one replica.

    Args: open_reader, gives an EventReader for one short read.
    """

    def __init__(self, open_reader: OpenReader) -> None:
        self._open_reader = open_reader
        self._by_topic: dict[str, dict[Outlet, _Subscription]] = {}
        self._sent: dict[Outlet, _Sent] = {}
        self._due = asyncio.Event()
        self._recent: collections.deque[_Told] = collections.deque(maxlen=RECENT_MAX)
        self.position = 0
        """All events up to here were delivered to whoever was subscribed."""

    def wake(self) -> None:
        """New positions may exist."""
        self._due.set()

    async def start(self) -> None:
        """Begin at the newest event: what is older is read by each subscription for itself."""
        async with self._open_reader() as reader:
            self.position = (await reader.bounds()).newest
            recent = await reader.after(max(0, self.position - RECENT_MAX), RECENT_MAX)
        self._recent.extend(_Told(event) for event in recent if event.position <= self.position)

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
            told = _Told(event)
            self._deliver(told)
            self._recent.append(told)
            self.position = event.position
        return len(events)

    def _deliver(self, told: _Told) -> None:
        position = told.event.position
        shown_to: dict[Outlet, tuple[str, ...]] = {}
        for name in told.event.topics:
            for outlet, subscription in self._by_topic.get(name, {}).items():
                if position > subscription.since:
                    shown_to[outlet] = (*shown_to.get(outlet, ()), subscription.topic.shown)
        for outlet, shown in shown_to.items():
            self._send(outlet, told, shown)

    def _send(self, outlet: Outlet, told: _Told, shown: tuple[str, ...]) -> None:
        sent = self._sent.get(outlet)
        if sent is None:
            sent = self._sent[outlet] = _Sent()
        if sent.is_new(told.event.position):
            outlet.offer_durable(told.text(shown))

    async def subscribe(self, outlet: Outlet, topics: Sequence[Topic], from_position: int | None) -> int:
        """Send the topics' events behind `from_position` (None: from now on), without a gap and without a repeat.

        Returns: the position from which live delivery goes on.
        Raises: Resync where the position is past retention, or from another database.
        """
        return await self.follow(outlet, topics, await self.begin(from_position))

    async def begin(self, from_position: int | None) -> int:
        """The position that a subscription from here starts behind. Raises: as subscribe."""
        position = self.position if from_position is None else from_position
        if self._remembers(position):
            return position
        async with self._open_reader() as reader:
            bounds = await reader.bounds()
        if position + 1 < bounds.oldest or position > bounds.newest:
            raise Resync(bounds.newest)
        return position

    async def follow(self, outlet: Outlet, topics: Sequence[Topic], position: int) -> int:
        """What subscribe does once its position is known to be readable."""
        by_name = {topic.name: topic for topic in topics}
        while position < (upto := self.position):
            past = await self._past(list(by_name), position, upto)
            for told in past:
                self._send(outlet, told, tuple(by_name[name].shown for name in told.event.topics if name in by_name))
            if len(past) == BATCH_MAX:
                position = past[-1].event.position
                await outlet.drained()
            else:
                position = upto
        # No await between the comparison above and this: what comes later is delivered by the loop.
        for topic in topics:
            self._by_topic.setdefault(topic.name, {})[outlet] = _Subscription(topic, position)
        return position

    def _remembers(self, position: int) -> bool:
        """Whether every event behind the position is kept here. Positions have no gaps."""
        if position == self.position:
            return True
        return position < self.position and bool(self._recent) and self._recent[0].event.position <= position + 1

    async def _past(self, names: Sequence[str], position: int, upto: int) -> list[_Told]:
        """The first BATCH_MAX events of these topics in (position, upto]."""
        if self._remembers(position):
            wanted = frozenset(names)
            begin = max(0, len(self._recent) - (self.position - position))
            behind = (told for told in itertools.islice(self._recent, begin, None) if not wanted.isdisjoint(told.event.topics))
            return list(itertools.islice(behind, BATCH_MAX))
        async with self._open_reader() as reader:
            return [_Told(event) for event in await reader.matching(names, after=position, upto=upto, limit=BATCH_MAX)]

    def unsubscribe(self, outlet: Outlet, topic: Topic | None = None) -> None:
        """Stop one topic, or all; then the outlet is forgotten. Whoever knows its topics stops them one by one: all are searched here."""
        for name in [topic.name] if topic else list(self._by_topic):
            outlets = self._by_topic.get(name, {})
            outlets.pop(outlet, None)
            if not outlets:
                self._by_topic.pop(name, None)
        if topic is None:
            self.forget(outlet)

    def forget(self, outlet: Outlet) -> None:
        """The client has gone, its topics were stopped."""
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
