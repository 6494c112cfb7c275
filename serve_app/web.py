"""What one web replica holds beside its resources, and what runs in its background."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import HTTPConnection

from qubix.bootstrap import Resources, scope
from qubix.kernel.ids import new_id
from qubix.kernel.tasks import end
from qubix.live.feed import EventReader, Feed
from qubix.live.hub import Hub, LiveHub, LocalRelay
from qubix.live.store import PostgresReader
from qubix.observability import logger
from qubix.postgres import outbox
from qubix.scheduling.model import WEB_BEAT_S
from serve_app.agents_beats import BeatLane
from serve_app.breaker import Breaker
from serve_app.callers import KnownCallers
from serve_app.gate import Gate
from serve_app.incoming import Incoming
from serve_app.limits import RateLimits
from serve_app.metrics import Measurements
from serve_app.origin import Origins
from serve_app.sockets import AgentSockets, ClientSockets

PAUSE_S: Final = 1.0
HASHES_AT_ONCE: Final = 2
"""A password's hash takes 64 MiB and a core for tens of milliseconds; its request also holds a connection meanwhile."""
HASHES_WAITING_MAX: Final = 200
AGENT_TURNS_MAX: Final = 6
"""Of the pool's connections (serve_app/deployment.py: 10, and 10 more for a moment)."""
GREETINGS_MAX: Final = 4
"""So many of these turns at most are waited for by those who say hello: anybody may, and whoever has a session does not stand behind them all."""
SESSIONS: Final = "sessions"
"""Wakes with a user's id: one of the user's sessions or keys ended."""
log = logger("web")


@dataclasses.dataclass(frozen=True)
class Web:
    """One replica."""

    resources: Resources
    hub: Hub
    feed: Feed
    limits: RateLimits
    breaker: Breaker
    origins: Origins
    measurements: Measurements
    agents: AgentSockets
    beats: BeatLane
    agent_turns: asyncio.Semaphore
    """Transactions of agents at one time. A thousand agents that come back together would each hold a place in the pool's queue
    until it gives up on them, and whoever came by HTTP would stand behind them all."""
    greetings: asyncio.Semaphore
    doubtful_greetings: asyncio.Semaphore
    """The one turn of those who greet from an address from which too many were refused: they wait for each other, and nobody for them."""
    clients: ClientSockets
    callers: KnownCallers
    hashing: Gate
    incoming: Incoming = dataclasses.field(default_factory=Incoming)

    @contextlib.asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Run the replica's loops around the application's life."""
        await self._start_feed()
        loops = [self.feed.run(), self.hub.run(), self._hear_events(), self._publish(), self._send_desired(), self._check_clients()]
        loops.append(self._beat())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            await end(tasks)

    async def _start_feed(self) -> None:
        while True:
            try:
                return await self.feed.start()
            except Exception as error:
                log.warning("waiting for the database", error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)

    async def _beat(self) -> None:
        """Tell the scheduler that agents can be heard: what they do not say while no replica lives is not their silence."""
        begun = True
        while True:
            try:
                async with scope(self.resources) as s:
                    await s.sessions.beat(begun=begun)
                begun = False
            except Exception as error:
                log.warning("cannot beat", error=type(error).__name__)
            await asyncio.sleep(WEB_BEAT_S)

    async def _hear_events(self) -> None:
        async with self.resources.listen("events") as listener:
            async for _ in listener:
                self.feed.wake()

    async def _publish(self) -> None:
        """Give positions to committed events. Every replica tries; the advisory lock lets one through."""
        async with self.resources.listen("outbox") as listener:
            async for _ in listener:
                try:
                    await self._publish_once()
                except Exception as error:
                    log.warning("cannot publish events", error=type(error).__name__)
                    await asyncio.sleep(PAUSE_S)

    async def _publish_once(self) -> None:
        count = outbox.PUBLISH_BATCH_MAX
        while count == outbox.PUBLISH_BATCH_MAX:
            async with scope(self.resources) as s:
                count = await outbox.publish(s.connection)
                if count:
                    s.wake("events")
        if count:
            self.feed.wake()

    async def _send_desired(self) -> None:
        connections = 0
        async with self.resources.listen("nodes") as listener:
            async for nodes in listener:
                if listener.connections != connections:
                    connections = listener.connections
                    self.agents.refresh_all()
                else:
                    self.agents.refresh(nodes)

    async def _check_clients(self) -> None:
        async with self.resources.listen(SESSIONS) as listener:
            async for users in listener:
                self.clients.check(users)
                if users:
                    self.callers.forget()


def make_web(resources: Resources) -> Web:
    """A replica over its resources; the hub of the resources is used where there is one."""

    @contextlib.asynccontextmanager
    async def reader() -> AsyncIterator[EventReader]:
        async with scope(resources) as s:
            yield PostgresReader(s.connection)

    settings = resources.settings
    breaker, measurements = Breaker(resources.clock), Measurements()
    measurements.watch(resources.engine, breaker)
    return Web(
        resources=resources,
        hub=resources.hub or LiveHub(new_id().hex, LocalRelay()),
        feed=Feed(reader),
        limits=RateLimits(settings),
        breaker=breaker,
        origins=Origins(settings.public_url, settings.cors_origins),
        measurements=measurements,
        agents=AgentSockets(),
        beats=BeatLane(resources),
        agent_turns=asyncio.Semaphore(AGENT_TURNS_MAX),
        greetings=asyncio.Semaphore(GREETINGS_MAX),
        doubtful_greetings=asyncio.Semaphore(1),
        clients=ClientSockets(),
        callers=KnownCallers(resources.clock),
        hashing=Gate(at_once=HASHES_AT_ONCE, waiting_max=HASHES_WAITING_MAX),
    )


def web_of(connection: HTTPConnection) -> Web:
    """The replica that serves this request or socket."""
    web: Web = connection.app.state.web
    return web
