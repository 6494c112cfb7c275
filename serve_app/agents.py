"""The agents' endpoint: `POST /agent/v1/join` and `WS /agent/v1/session` (qubix/agent/protocol.py).

Frames that arrived together are taken in one transaction, in their order; a beat that came alone and repeats the last one is
taken with those of other agents (serve_app/agents_beats.py). What they are answered, and what clients watch live, goes out
after the commit. The database is the only judge: this socket holds no state that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeGuard
from uuid import UUID

from fastapi import APIRouter, Request, WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from qubix.agent.protocol import (
    FRAME_SIZE_MAX_BYTES,
    AliveAttempt,
    Challenge,
    Down,
    Durable,
    Hello,
    JoinAnswer,
    JoinRequest,
    Metrics,
    Refused,
    Status,
    Up,
    parse_up,
)
from qubix.bootstrap import scope
from qubix.kernel.errors import Invalid, Limited, QubixError
from qubix.kernel.failpoints import reach
from qubix.kernel.tasks import end
from qubix.observability import logger
from qubix.scheduling.beats import Received
from qubix.scheduling.sessions import HelloRefused, Opened, SessionOver
from serve_app.api.shapes import PROBLEMS
from serve_app.calls import address_of
from serve_app.errors import is_passing_conflict
from serve_app.limits import Bucket
from serve_app.web import Web, web_of

router = APIRouter(prefix="/agent/v1", tags=["agents"])
HELLO_TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 95.0
"""Three missed heartbeats: the socket is given up."""
BATCH_MAX: Final = 200
WAITING_MAX: Final = 2000
"""Frames read but not yet stored; beyond, the socket is not read, and the agent's spool waits."""
TRIES_MAX: Final = 4
PACE_S: Final = 10.0
VOLATILE_MAX: Final = 5_000
"""Beats, measurements and progress of one connection within PACE_S: an agent sends some a second, and at most a thousand that waited for the network."""
FRAMES_MAX: Final = 50_000
"""All frames of one connection within PACE_S. What is acknowledged paces itself: an agent has 256 of those under way."""
TOO_OFTEN: Final = 4429

log = logger("web.agents")


@router.post("/join", responses=PROBLEMS)
async def join(body: JoinRequest, request: Request) -> JoinAnswer:
    """Spend a join token and register this machine's public key. Idempotent by worker id."""
    web = web_of(request)
    await web.limits.admit_address(Bucket.LOGIN, f"join/{address_of(request)}")

    async def transaction() -> JoinAnswer:
        async with scope(web.resources) as s:
            joined = await s.providers.join(body)
            return JoinAnswer(provider_id=joined.provider_id, node_id=joined.node_id, created=joined.created)

    return await web.breaker.run(transaction)


@router.websocket("/session")
async def session(socket: WebSocket) -> None:
    """One agent's session: challenge, hello, welcome and desired, then frames both ways."""
    web = web_of(socket)
    await socket.accept()
    address = address_of(socket)
    try:
        node, opened = await _greet(web, socket, address)
    except (QubixError, ValidationError, TimeoutError) as error:
        if isinstance(error, HelloRefused | Invalid | ValidationError):
            await web.limits.note_hello(None, address, good=False)
            log.info("agent refused", address=address, reason=type(error).__name__)
        await _refuse(socket, error)
        return
    except WebSocketDisconnect:
        return
    with web.measurements.sockets.labels("agent").track_inprogress():
        await Session(web, socket, node, opened).run()


async def _greet(web: Web, socket: WebSocket, address: str) -> tuple[UUID, Opened]:
    nonce = secrets.token_urlsafe(32)
    await socket.send_text(Challenge(nonce=nonce).model_dump_json())
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        hello = _parse(await socket.receive_text())
    if not isinstance(hello, Hello):
        raise Invalid("the first frame is hello", next_step="connect anew")
    lane = web.doubtful_greetings if await web.limits.is_doubtful(hello.node, address) else web.greetings
    async with lane, web.agent_turns, scope(web.resources) as s:
        opened = await s.sessions.open(hello, nonce)
    await web.limits.note_hello(hello.node, address, good=True)
    return hello.node, opened


class Pace:
    """How many frames a connection sends. Args: now, a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until = now() + PACE_S
        self._all = self._volatile = 0

    def count(self, frame: Up) -> None:
        """Count one. Raises: Limited beyond what any agent sends."""
        if self._now() >= self._until:
            self._until, self._all, self._volatile = self._now() + PACE_S, 0, 0
        self._all += 1
        self._volatile += not isinstance(frame, Durable)
        if self._all > FRAMES_MAX or self._volatile > VOLATILE_MAX:
            raise Limited(
                f"{self._all} frames within {PACE_S:.0f} s, {self._volatile} of them without an acknowledgement: no agent sends so many",
                next_step="connect anew, and install the server's release",
                retry_after_s=PACE_S,
            )


class Session:
    """One open session: a reader, a taker of batches, and a sender of the desired state."""

    def __init__(self, web: Web, socket: WebSocket, node: UUID, opened: Opened) -> None:
        self._web = web
        self._socket = socket
        self._node = node
        self._session = opened.welcome.session
        self._opened = opened
        self._frames: asyncio.Queue[Up] = asyncio.Queue(WAITING_MAX)
        self._desired_due = asyncio.Event()
        self._sent = opened.desired.generation
        # Of an idle machine the first heartbeat tells nothing that hello did not; a thousand that come back together gain by it.
        self._said: tuple[int, tuple[AliveAttempt, ...]] | None = None if opened.desired.attempts else (self._sent, ())
        self._sending = asyncio.Lock()
        self._pace = Pace(asyncio.get_running_loop().time)

    def refresh(self) -> None:
        """The node's desired state has changed."""
        self._desired_due.set()

    async def run(self) -> None:
        """Serve until either side ends it."""
        self._web.agents.add(self._node, self)
        log.info("agent connected", node=str(self._node))
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._send([self._opened.welcome, self._opened.desired])
            tasks = [asyncio.create_task(loop) for loop in (self._read(), self._take(), self._send_desired())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._end(next(iter(done)).exception())
        except WebSocketDisconnect:
            pass
        finally:
            await end(tasks)
            self._web.agents.remove(self._node, self)
            await self._note_end()

    async def _read(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_MAX_S):
                text = await self._socket.receive_text()
            frame = _parse(text)
            self._pace.count(frame)
            self._web.measurements.frames.labels(getattr(frame, "t", "")).inc()
            await self._frames.put(frame)

    async def _take(self) -> None:
        while True:
            batch = [await self._frames.get()]
            while len(batch) < BATCH_MAX and not self._frames.empty():
                batch.append(self._frames.get_nowait())
            batch = newest(batch)
            received = await self._web.beats.store(self._node, batch[0]) if self._is_routine(batch) else await self._store(batch)
            reach("web.frames_stored")
            self._web.hub.publish(received.live)
            await self._send(received.answers)
            reach("web.frames_answered")

    def _is_routine(self, batch: Sequence[Up]) -> TypeGuard[Sequence[Status | Metrics]]:
        """Whether it may wait for company: a lone measurement, or a lone heartbeat that says of attempts what the last one said."""
        for frame in batch:
            if isinstance(frame, Status):
                before, self._said = self._said, (frame.generation, frame.alive)
                if self._said != before:
                    return False
        return len(batch) == 1 and isinstance(batch[0], Status | Metrics)

    async def _store(self, batch: Sequence[Up]) -> Received:
        for tries in range(1, TRIES_MAX + 1):
            try:
                async with self._web.agent_turns, scope(self._web.resources) as s:
                    return await s.frames.receive_many(self._node, batch)
            except Exception as error:
                # The whole batch lost a race and left nothing behind, so it may be stored again.
                if not is_passing_conflict(error) or tries == TRIES_MAX:
                    raise
                await asyncio.sleep(0.02 * tries)
        raise AssertionError("the last try returns or raises")

    async def _send_desired(self) -> None:
        while True:
            await self._desired_due.wait()
            self._desired_due.clear()
            async with self._web.agent_turns, scope(self._web.resources) as s:
                desired = await s.sessions.desired(self._node)
            if desired is None or desired.session != self._session:
                raise SessionOver
            if desired.generation > self._sent:
                self._sent = desired.generation
                await self._send([desired])

    async def _send(self, frames: Sequence[Down]) -> None:
        async with self._sending:
            for frame in frames:
                await self._socket.send_text(frame.model_dump_json())

    async def _end(self, error: BaseException | None) -> None:
        if isinstance(error, Limited):
            log.warning("agent sends too much", node=str(self._node), reason=error.message)
        if isinstance(error, QubixError | ValidationError):
            await _refuse(self._socket, error)
        elif error is not None and not isinstance(error, WebSocketDisconnect):
            log.warning("agent session ended", node=str(self._node), error=repr(error))
            with contextlib.suppress(Exception):
                await self._socket.close(1011, "try again")

    async def _note_end(self) -> None:
        log.info("agent disconnected", node=str(self._node))
        try:
            async with self._web.agent_turns, scope(self._web.resources) as s:
                await s.sessions.disconnected(self._node, self._session)
        except Exception as error:
            log.warning("cannot note a closed socket", node=str(self._node), error=type(error).__name__)


def newest(batch: list[Up]) -> list[Up]:
    """Of beats that had to wait for each other, the last status, else the last measurement: it says all that the others did.

    So a server that is behind catches up by doing less, where a transaction for what each agent has waiting would put it further behind.
    """
    if not all(isinstance(frame, Status | Metrics) for frame in batch):
        return batch
    return [next((frame for frame in reversed(batch) if isinstance(frame, Status)), batch[-1])]


def _parse(text: str) -> Up:
    if len(text) > FRAME_SIZE_MAX_BYTES:
        raise Invalid(f"a frame has at most {FRAME_SIZE_MAX_BYTES} bytes", next_step="connect anew")
    return parse_up(text)


async def _refuse(socket: WebSocket, error: Exception) -> None:
    if isinstance(error, QubixError):
        frame = Refused(code=error.code, message=error.message, next_step=error.next_step)
    elif isinstance(error, TimeoutError):
        frame = Refused(code="timeout", message="no hello came", next_step="connect anew")
    else:
        frame = Refused(code="invalid", message="a frame could not be read", next_step="install the server's release")
    with contextlib.suppress(Exception):
        await socket.send_text(frame.model_dump_json())
        await socket.close(TOO_OFTEN if isinstance(error, Limited) else 1008, frame.code)
