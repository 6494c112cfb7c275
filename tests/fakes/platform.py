"""The platform's end of the agent protocol, on a real loopback socket: it says what a test tells it to, and remembers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from qubix.agent.protocol import (
    Accept,
    Ack,
    AttemptSpec,
    Challenge,
    Desired,
    DesiredAttempt,
    Down,
    Durable,
    Frame,
    Grant,
    Hello,
    InputFile,
    Restore,
    Status,
    Welcome,
    hello_bytes,
    parse_up,
)
from qubix.agent.transfer import AttemptOver, TransferFailed, TransferRefused

F = TypeVar("F", bound=Frame)


def desired_attempt(
    kind: str, *devices: str, limit_ms: int = 60_000, inputs: tuple[InputFile, ...] = (), restore: Restore | None = None
) -> DesiredAttempt:
    """One line of a desired state."""
    spec = AttemptSpec(kind=kind, inputs=inputs, restore=restore)
    return DesiredAttempt(id=uuid4(), fence=1, spec=spec, devices=devices, limit_ms=limit_ms)


class FakePlatform:
    """One node's platform. `grants`: accepts are granted; `acks`: durable frames are acknowledged; `muted`: statuses get no answer."""

    def __init__(self, node: UUID, public_key_hex: str) -> None:
        self.node, self._key = node, Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key_hex))
        self.session = uuid4()
        self.generation = 0
        self.attempts: list[DesiredAttempt] = []
        self.frames: list[Frame] = []
        self.hellos: list[Hello] = []
        self.grants = self.acks = True
        self.muted = False
        self.answer: Callable[[Frame], list[Down] | None] = lambda frame: None
        self.inputs: dict[str, bytes] = {}
        """Served over HTTP on the same port, by name."""
        self.port = 0
        self._socket: ServerConnection | None = None
        self._server: Server | None = None
        self._news = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakePlatform]:
        """Listen on a free loopback port."""
        await self.listen()
        try:
            yield self
        finally:
            await self.close()

    async def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await serve(
            self._talk, "127.0.0.1", self.port or None, compression=None, ping_interval=None, process_request=self._fetch
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop the connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def drop(self) -> None:
        """Break the connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def want(self, *attempts: DesiredAttempt) -> None:
        """Change the desired state and tell it."""
        self.attempts = list(attempts)
        self.generation += 1
        await self.tell(self.desired())

    def desired(self) -> Desired:
        """The desired state now."""
        return Desired(session=self.session, generation=self.generation, attempts=tuple(self.attempts))

    async def tell(self, frame: Down) -> None:
        """Send a frame."""
        assert self._socket is not None
        await self._socket.send(frame.model_dump_json())

    def of(self, kind: type[F]) -> list[F]:
        """All frames of a kind so far."""
        return [f for f in self.frames if isinstance(f, kind)]

    async def until(self, seen: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait until `seen` holds."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: bool(seen()))

    def _fetch(self, socket: ServerConnection, request: Request) -> Response | None:
        _, found, name = request.path.partition("/inputs/")
        if not found:
            return None
        body = self.inputs.get(name)
        headers = Headers([("Content-Length", str(len(body or b""))), ("Connection", "close")])
        return Response(404 if body is None else 200, "", headers, body or b"")

    async def _talk(self, socket: ServerConnection) -> None:
        await socket.send(Challenge(nonce="n").model_dump_json())
        hello = parse_up(await socket.recv())
        assert isinstance(hello, Hello)
        self._key.verify(bytes.fromhex(hello.signature), hello_bytes("n", self.node))
        self.session = uuid4()
        self._socket = socket
        await socket.send(Welcome(session=self.session, token="t").model_dump_json())
        await socket.send(self.desired().model_dump_json())
        await self._note(hello)
        with contextlib.suppress(Exception):
            async for text in socket:
                frame = parse_up(text)
                for answer in self._answers(frame):
                    await socket.send(answer.model_dump_json())
                await self._note(frame)

    def _answers(self, frame: Frame) -> list[Down]:
        told = self.answer(frame)
        if told is not None:
            return told
        if isinstance(frame, Status) and not self.muted:
            return [self.desired()]
        if isinstance(frame, Accept) and self.grants:
            return [
                Grant(attempt=frame.attempt, fence=frame.fence, limit_ms=next(a.limit_ms for a in self.attempts if a.id == frame.attempt))
            ]
        if isinstance(frame, Durable) and self.acks:
            return [Ack(key=frame.key)]
        return []

    async def _note(self, frame: Frame) -> None:
        async with self._news:
            if isinstance(frame, Hello):
                self.hellos.append(frame)
            else:
                self.frames.append(frame)
            self._news.notify_all()


class FakeTransfer:
    """Bytes in memory; `failing` puts fail first; `refuse_all`, none is ever taken; `over`, the attempt is fenced off; `puts` counts them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.inputs: dict[str, bytes] = {}
        self.checkpoint: bytes | None = None
        self.failing = 0
        self.refuse_all = False
        self.over = False
        self.puts = 0

    async def put_blob(self, attempt: UUID, fence: int, sha256: str, path: Path) -> None:
        self.puts += 1
        if self.over:
            raise AttemptOver("409 stale_attempt")
        content = path.read_bytes()  # noqa: ASYNC240
        if self.refuse_all:
            await asyncio.sleep(0.02)
            raise TransferRefused("413")
        if self.failing:
            self.failing -= 1
            raise TransferFailed("503")
        self.blobs[sha256] = content

    async def get_input(self, attempt: UUID, fence: int, name: str, sha256: str, size: int, target: Path) -> None:
        if name not in self.inputs:
            raise TransferRefused(f"{name} is gone")
        target.write_bytes(self.inputs[name])  # noqa: ASYNC240

    async def get_checkpoint(self, attempt: UUID, fence: int, sha256: str, size: int, target: Path) -> None:
        if self.checkpoint is None:
            raise TransferRefused("no checkpoint")
        target.write_bytes(self.checkpoint)  # noqa: ASYNC240
