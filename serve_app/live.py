"""The live view, `WS /api/ws`: subscribe to topics, resume from a position, never slow anybody else.

    client: {"t":"subscribe","topics":["job:<id>"],"from_position":12}  {"t":"unsubscribe","topics":[…]}  {"t":"ping"}
    server: {"t":"subscribed",…} {"t":"event","position":13,…} {"t":"live",…} {"t":"refused",…} {"t":"resync",…} {"t":"beat",…} {"t":"pong"}

Events come in order of position, each once per connection; `live` messages (metrics, progress, log lines) may be dropped for
newer ones when the client is slow. A client that falls too far behind is closed (4408) and resumes from its last position.
`subscribed` comes when everything behind `from_position` has been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, WebSocket
from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from qubix.bootstrap import Scope, scope
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.kernel.errors import NotFound, QubixError, Unauthenticated
from qubix.kernel.tasks import end
from qubix.live import hub as live_hub
from qubix.live.feed import Resync
from qubix.live.outlet import Outlet
from qubix.live.topics import TOPICS_MAX, Topic, TopicKind, parse
from serve_app.api.shapes import Body
from serve_app.calls import cookie_of
from serve_app.web import Web, web_of

router = APIRouter()
MESSAGE_MAX_BYTES: Final = 16 << 10
MESSAGES_PER_BEAT_MAX: Final = 300
BEAT_S: Final = 25.0
SEND_TIMEOUT_S: Final = 20.0
LOGGED_OUT: Final = 4401
TOO_SLOW: Final = 4408
TOO_LARGE: Final = 1009
TOO_OFTEN: Final = 4429


class Subscribe(Body):
    """Follow topics, from behind a position (null: from now on)."""

    t: Literal["subscribe"]
    topics: list[Annotated[str, Field(max_length=100)]] = Field(min_length=1, max_length=TOPICS_MAX)
    from_position: int | None = Field(None, ge=0)


class Unsubscribe(Body):
    """Stop following topics."""

    t: Literal["unsubscribe"]
    topics: list[Annotated[str, Field(max_length=100)]] = Field(min_length=1, max_length=TOPICS_MAX)


class Ping(Body):
    """Ask for a pong."""

    t: Literal["ping"]


_MESSAGES: Final = TypeAdapter[Subscribe | Unsubscribe | Ping](Annotated[Subscribe | Unsubscribe | Ping, Field(discriminator="t")])


class _Close(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@router.websocket("/api/ws")
async def follow(socket: WebSocket) -> None:
    """One client's connection."""
    web = web_of(socket)
    token, from_cookie = _credential(web, socket)
    if (from_cookie or "origin" in socket.headers) and not web.origins.is_ours(socket.headers):
        await socket.close(1008, "this page is not ours")
        return
    try:
        principal = await _principal(web, token)
    except QubixError:
        await socket.close(1008, "log in again")
        return
    await socket.accept()
    with web.measurements.sockets.labels("client").track_inprogress():
        await Client(web, socket, token, principal).run()


class Client:
    """One connected client."""

    def __init__(self, web: Web, socket: WebSocket, token: str | None, principal: Principal | None) -> None:
        self._web = web
        self._socket = socket
        self._token = token
        self._principal = principal
        self._outlet = Outlet()
        self._topics: set[Topic] = set()
        self._received = 0

    async def run(self) -> None:
        """Serve until either side ends it."""
        loops = [self._read(), self._write()]
        if self._principal is not None:
            loops.append(self._check(self._principal))
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._say_goodbye(next(iter(done)).exception())
        finally:
            await end(tasks)
            for topic in self._topics:
                self._web.feed.unsubscribe(self._outlet, topic)
                self._web.hub.detach(self._outlet, topic.name)
            self._web.feed.forget(self._outlet)

    async def _say_goodbye(self, error: BaseException | None) -> None:
        if isinstance(error, _Close):
            with contextlib.suppress(Exception):
                await self._socket.close(error.code, error.reason)
        elif error is not None and not isinstance(error, WebSocketDisconnect | TimeoutError):
            with contextlib.suppress(Exception):
                await self._socket.close(1011, "try again")

    async def _read(self) -> None:
        async for text in self._socket.iter_text():
            self._received += 1
            if len(text) > MESSAGE_MAX_BYTES:
                raise _Close(TOO_LARGE, f"at most {MESSAGE_MAX_BYTES} bytes a message")
            if self._received > MESSAGES_PER_BEAT_MAX:
                raise _Close(TOO_OFTEN, "too many messages")
            try:
                message = _MESSAGES.validate_json(text)
            except ValidationError as error:
                self._say({"t": "error", "code": "invalid", "message": error.errors()[0]["msg"]})
                continue
            if isinstance(message, Subscribe):
                await self._subscribe(message)
            elif isinstance(message, Unsubscribe):
                self._unsubscribe(message)
            else:
                self._say({"t": "pong"})

    async def _write(self) -> None:
        now = asyncio.get_running_loop().time
        beat_at = now() + BEAT_S
        while True:
            if now() >= beat_at:
                beat_at = now() + BEAT_S
                self._received = 0
                self._say({"t": "beat", "position": self._web.feed.position})
            texts: list[str] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(beat_at):
                    texts = await self._outlet.take()
            for text in texts:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._socket.send_text(text)
            if self._outlet.overflowed:
                raise _Close(TOO_SLOW, "too slow: reconnect and resume")

    async def _check(self, principal: Principal) -> None:
        """Whether the credential still holds: at every logout of this user, and now and then (it may simply expire)."""
        user = principal.user_id
        due = self._web.clients.add(user)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await due.wait()
                due.clear()
                try:
                    await _principal(self._web, self._token)
                except Unauthenticated:
                    raise _Close(LOGGED_OUT, "the session is over") from None
        finally:
            self._web.clients.remove(user, due)

    async def _subscribe(self, message: Subscribe) -> None:
        topics = await self._allowed(message.topics)
        if not topics:
            return
        try:
            position = await self._web.feed.begin(message.from_position)
        except Resync as gap:
            position = gap.position
            self._say({"t": "resync", "topics": [topic.shown for topic in topics], "position": position})
        for topic in topics:
            self._web.hub.attach(self._outlet, topic.name, topic.shown)
            self._topics.add(topic)
        position = await self._web.feed.follow(self._outlet, topics, position)
        # Said last: until then the position of another topic's event says nothing about these.
        self._say({"t": "subscribed", "topics": [topic.shown for topic in topics], "position": position})
        for topic in topics:
            for sample in await self._web.hub.recent(topic.name):
                self._outlet.offer_volatile(live_hub.encode(sample, topic.shown), f"{topic.name}/{sample.subject}")

    def _unsubscribe(self, message: Unsubscribe) -> None:
        for topic in [topic for topic in self._topics if topic.shown in message.topics or topic.name in message.topics]:
            self._web.feed.unsubscribe(self._outlet, topic)
            self._web.hub.detach(self._outlet, topic.name)
            self._topics.discard(topic)

    async def _allowed(self, names: list[str]) -> list[Topic]:
        caller = self._principal.user_id if self._principal else None
        allowed: list[Topic] = []
        async with contextlib.AsyncExitStack() as stack:
            s: Scope | None = None
            for name in names:
                try:
                    topic = parse(name, caller)
                    if len(self._topics) + len(allowed) >= TOPICS_MAX:
                        raise _Close(TOO_OFTEN, f"at most {TOPICS_MAX} topics a connection")
                    if topic.subject is not None and self._principal is not None:  # of the marketplace there is nothing to ask
                        if s is None:
                            s = await stack.enter_async_context(scope(self._web.resources))
                        await check_access(s, topic, self._principal)
                except QubixError as error:
                    self._say({"t": "refused", "topic": name, "code": error.code, "message": error.message, "next_step": error.next_step})
                else:
                    allowed.append(topic)
        return allowed

    def _say(self, message: dict[str, Any]) -> None:
        self._outlet.offer_durable(json.dumps(message, separators=(",", ":")))


async def check_access(s: Scope, topic: Topic, principal: Principal) -> None:
    """Whether this user may follow the topic: its news name jobs, so a provider's is the owner's alone.

    Raises: NotFound, also for what is somebody else's; ScopeMissing for a key that may not read.
    """
    if topic.subject is None:
        return
    principal.require(Grant.READ)
    match topic.kind:
        case TopicKind.JOB:
            await s.jobs.get(principal.user_id, topic.subject)
        case TopicKind.ESCROW:
            await s.escrow.get(topic.subject, principal.user_id)
        case TopicKind.PROVIDER:
            if (await s.providers.provider(topic.subject)).owner_id != principal.user_id:
                raise NotFound("You are not this provider.", next_step="Follow the marketplace.")


async def _principal(web: Web, token: str | None) -> Principal | None:
    if token is None:
        return None
    async with scope(web.resources) as s:
        return await s.identity.authenticate(token)


def _credential(web: Web, socket: WebSocket) -> tuple[str | None, bool]:
    kind, _, token = socket.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token:
        return token, False
    cookie = socket.cookies.get(cookie_of(web))
    return cookie, cookie is not None
