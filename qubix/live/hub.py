"""Volatile messages (metrics, progress, log lines): from the agent's socket to every client's, through no database.

Each web replica has one hub. It hands messages to its own clients at once and to a *relay*, which carries them to the
other replicas and remembers the last samples. The relay between processes is the Ray hub actor (qubix/fabric/hub.py): a thin
shell around `Board`; where there is one process, `LocalRelay` is the same board without the shell.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from qubix.kernel.events import EventType
from qubix.live.outlet import Outlet

RING_MAX: Final = 60
"""Samples kept per subject: the last minute at one a second."""
SUBJECTS_MAX: Final = 10_000
RING_KEEP_S: Final = 300.0
"""A subject without news for so long is forgotten: its attempt has ended, or what it said is read from the database by now."""
BACKLOG_MAX: Final = 1_024
"""Messages kept for a replica that is behind; a replica further behind misses what the ring does not hold."""
PUSH_PENDING_MAX: Final = 2_048
PROGRESS_MAX: Final = 1_000
"""Progress values that a replica remembers itself, for the moment in which the relay knows an older one."""
PULL_WAIT_S: Final = 5.0
RELAY_RETRY_S: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Volatile:
    """A message that may be dropped for a newer one.

    Args: type, one of GPU_METRICS_UPDATE, JOB_PROGRESS, JOB_LOG; topics, full names; subject, the value that it updates,
        as `device:<uuid>`, `progress:<attempt>`, `log:<attempt>/<stream>`; payload, JSON members; at, Unix seconds of the server.
    """

    type: EventType
    topics: tuple[str, ...]
    subject: str
    payload: Mapping[str, Any]
    at: float


Batch = tuple[str, Sequence[Volatile]]
"""Messages with the replica that they came from."""


class Relay(Protocol):
    """Carries volatile messages between web replicas. Losing some is allowed, blocking is not."""

    async def push(self, origin: str, messages: Sequence[Volatile]) -> None:
        """Hand over messages of replica `origin`."""
        ...

    async def pull(self, after: int, wait_s: float) -> tuple[int, list[Batch]]:
        """Batches behind the cursor `after` (−1: from now on), waiting up to `wait_s` for one. Returns: the new cursor, the batches."""
        ...

    async def recent(self, topic: str) -> list[Volatile]:
        """The last samples of each subject of a topic, oldest first."""
        ...


class Board:
    """The relay's memory: a backlog with a cursor, and a ring per subject. Single event loop."""

    def __init__(self) -> None:
        self._backlog: collections.deque[Batch] = collections.deque(maxlen=BACKLOG_MAX)
        self._end = 0
        self._more = asyncio.Event()
        self._rings: collections.OrderedDict[tuple[str, str], collections.deque[Volatile]] = collections.OrderedDict()
        self._by_topic: dict[str, dict[str, collections.deque[Volatile]]] = {}

    async def push(self, origin: str, messages: Sequence[Volatile]) -> None:
        """See Relay."""
        for message in messages:
            for topic in message.topics:
                self._remember(topic, message)
        self._backlog.append((origin, tuple(messages)))
        self._end += 1
        self._more.set()
        self._more = asyncio.Event()

    async def pull(self, after: int, wait_s: float) -> tuple[int, list[Batch]]:
        """See Relay."""
        if after < 0 or after > self._end:
            return self._end, []
        if after == self._end:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._more.wait()
        behind = min(self._end - after, len(self._backlog))
        return self._end, list(self._backlog)[len(self._backlog) - behind :]

    async def recent(self, topic: str) -> list[Volatile]:
        """See Relay."""
        found = [message for ring in self._by_topic.get(topic, {}).values() for message in ring]
        return sorted(found, key=lambda message: message.at)

    def _remember(self, topic: str, message: Volatile) -> None:
        kept = 1 if message.type is EventType.JOB_PROGRESS else RING_MAX  # whoever comes back must not see progress fall
        ring = self._rings.get((topic, message.subject))
        if ring is None:
            ring = self._rings[topic, message.subject] = collections.deque(maxlen=kept)
            self._by_topic.setdefault(topic, {})[message.subject] = ring
        if message.type is EventType.JOB_PROGRESS and ring and ring[-1].at > message.at:
            return  # of a replica that was slow to say it
        ring.append(message)
        self._rings.move_to_end((topic, message.subject))
        while len(self._rings) > SUBJECTS_MAX or self._oldest().at < message.at - RING_KEEP_S:
            self._forget(*self._rings.popitem(last=False)[0])

    def _oldest(self) -> Volatile:
        """The last word of the subject that has been silent longest."""
        return next(iter(self._rings.values()))[-1]

    def _forget(self, topic: str, subject: str) -> None:
        rings = self._by_topic[topic]
        del rings[subject]
        if not rings:
            del self._by_topic[topic]


class LocalRelay(Board):
    """The relay of a single process."""


class Hub(Protocol):
    """What the web layer knows of the live hub."""

    def publish(self, messages: Sequence[Volatile]) -> None:
        """Send now to local clients, soon to the other replicas. Never blocks, never raises."""
        ...

    def attach(self, outlet: Outlet, topic: str, shown: str) -> None:
        """Send the topic's messages to the outlet from now on, under the name `shown`."""
        ...

    def detach(self, outlet: Outlet, topic: str | None = None) -> None:
        """Stop one topic, or all."""
        ...

    async def recent(self, topic: str) -> list[Volatile]:
        """The last samples of each subject of the topic; empty where the relay is away."""
        ...

    async def run(self) -> None:
        """Exchange messages with the other replicas until cancelled."""
        ...


class LiveHub:
    """The hub of one web replica.

    Args: origin, a name for this replica, unique among all; relay, the way to the others.
    """

    def __init__(self, origin: str, relay: Relay) -> None:
        self._origin = origin
        self._relay = relay
        self._outlets: dict[str, dict[Outlet, str]] = {}
        self._pending: collections.deque[Volatile] = collections.deque(maxlen=PUSH_PENDING_MAX)
        self._progress: collections.OrderedDict[str, Volatile] = collections.OrderedDict()
        self._push_due = asyncio.Event()

    def publish(self, messages: Sequence[Volatile]) -> None:
        """See Hub."""
        self._deliver(messages)
        self._pending.extend(messages)
        self._push_due.set()

    def attach(self, outlet: Outlet, topic: str, shown: str) -> None:
        """See Hub."""
        self._outlets.setdefault(topic, {})[outlet] = shown

    def detach(self, outlet: Outlet, topic: str | None = None) -> None:
        """See Hub."""
        for name in [topic] if topic else list(self._outlets):
            outlets = self._outlets.get(name, {})
            outlets.pop(outlet, None)
            if not outlets:
                self._outlets.pop(name, None)

    async def recent(self, topic: str) -> list[Volatile]:
        """See Hub."""
        try:
            samples = await self._relay.recent(topic)
        except Exception:
            return []
        return [self._newer(sample) for sample in samples]

    def _advance(self, message: Volatile) -> bool:
        """Remember a progress. Returns: whether none that is newer was told already, as of an agent that has changed its replica."""
        told = self._progress.get(message.subject)
        if told is not None and told.at > message.at:
            return False
        self._progress[message.subject] = message
        self._progress.move_to_end(message.subject)
        if len(self._progress) > PROGRESS_MAX:
            self._progress.popitem(last=False)
        return True

    def _newer(self, sample: Volatile) -> Volatile:
        """What a client was told before the relay heard of it: after 100 % nobody may be told 50."""
        told = self._progress.get(sample.subject)
        return told if told is not None and told.at > sample.at else sample

    async def run(self) -> None:
        """See Hub."""
        await asyncio.gather(self._push_forever(), self._pull_forever())

    async def _push_forever(self) -> None:
        while True:
            await self._push_due.wait()
            self._push_due.clear()
            messages = list(self._pending)
            self._pending.clear()
            try:
                await self._relay.push(self._origin, messages)
            except Exception:
                await asyncio.sleep(RELAY_RETRY_S)

    async def _pull_forever(self) -> None:
        cursor = -1
        while True:
            try:
                cursor, batches = await self._relay.pull(cursor, PULL_WAIT_S)
            except Exception:
                await asyncio.sleep(RELAY_RETRY_S)
                cursor = -1
                continue
            for origin, messages in batches:
                if origin != self._origin:
                    self._deliver(messages)

    def _deliver(self, messages: Sequence[Volatile]) -> None:
        for message in messages:
            if message.type is EventType.JOB_PROGRESS and not self._advance(message):
                continue
            tail = ""
            for topic in message.topics:
                for outlet, shown in self._outlets.get(topic, {}).items():
                    tail = tail or _tail(message)
                    outlet.offer_volatile(live_text(shown, tail), f"{topic}/{message.subject}")


def live_text(shown: str, tail: str) -> str:
    """One volatile message as the client sees it; the costly part, `tail`, is made once for all clients."""
    return f'{{"t":"live","topic":"{shown}",{tail}'


def encode(message: Volatile, shown: str) -> str:
    """One volatile message as the client sees it."""
    return live_text(shown, _tail(message))


def _tail(message: Volatile) -> str:
    return json.dumps({"event": message.type, "at": message.at, "payload": message.payload}, separators=(",", ":"), default=str)[1:]
