"""A provider's machine that speaks the agent protocol over a real socket, as scripted by a test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect

from qubix.agent.protocol import (
    Challenge,
    Desired,
    DesiredAttempt,
    Frame,
    Hello,
    JoinAnswer,
    NodeFacts,
    Status,
    Welcome,
    hello_bytes,
    parse_down,
)
from tests.api.conftest import Person, World
from tests.fakes.nodes import facts, gpu, sample

F = TypeVar("F", bound=Frame)


class Machine:
    """One joined machine. `say` sends, `hear` waits for a frame of a kind."""

    def __init__(self, world: World, key: Ed25519PrivateKey, joined: JoinAnswer, said: NodeFacts) -> None:
        self.world = world
        self.key = key
        self.id = joined.node_id
        self.provider_id = joined.provider_id
        self.facts = said
        self.socket: ClientConnection | None = None
        self.welcome: Welcome | None = None
        self.seq = 0
        self.generation = 0

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Desired]:
        """Open a session, beat once, and give the desired state it began with."""
        async with connect(f"ws{self.world.url[4:]}/agent/v1/session") as self.socket:
            challenge = await self.hear(Challenge)
            signature = self.key.sign(hello_bytes(challenge.nonce, self.id)).hex()
            await self.say(Hello(node=self.id, signature=signature, facts=self.facts))
            self.welcome = await self.hear(Welcome)
            desired = await self.hear(Desired)
            await self.beat()
            await self.hear(Desired)
            yield desired

    @property
    def session(self) -> Any:
        """The session's id."""
        assert self.welcome is not None
        return self.welcome.session

    async def say(self, frame: Frame) -> None:
        assert self.socket is not None
        await self.socket.send(frame.model_dump_json())

    async def hear(self, kind: type[F], *, timeout_s: float = 5) -> F:
        """The next frame of this kind; others are passed over."""
        assert self.socket is not None
        async with asyncio.timeout(timeout_s):
            while True:
                frame = parse_down(await self.socket.recv())
                if isinstance(frame, Desired):
                    self.generation = frame.generation
                if isinstance(frame, kind):
                    return frame

    async def beat(self) -> None:
        """A status with a fresh measurement."""
        self.seq += 1
        uuids = [device.uuid for device in self.facts.devices]
        await self.say(Status(session=self.session, seq=self.seq, generation=self.generation, sample=sample(uuids)))

    async def work(self) -> DesiredAttempt:
        """Wait until there is something to run."""
        while True:
            desired = await self.hear(Desired)
            if desired.attempts:
                return desired.attempts[0]

    async def put(self, attempt: DesiredAttempt, content: bytes, *, token: str | None = None, sha256: str | None = None) -> Any:
        """Send bytes under the attempt and fence."""
        assert self.welcome is not None
        digest = sha256 or hashlib.sha256(content).hexdigest()
        client = self.world.client(token or self.welcome.token)
        return await client.put(f"/agent/v1/attempts/{attempt.id}/{attempt.fence}/blobs/{digest}", content=content)


async def machine(world: World, owner: Person, *, model: str = "RTX_4090", price: int = 3_600_000, gpus: int = 1) -> Machine:
    """Join a machine with declared GPUs over HTTP."""
    token = (await owner.http.post("/api/providers/join-tokens")).json()["token"]
    key = Ed25519PrivateKey.generate()
    said = facts([gpu(f"GPU-{uuid4()}", model) for _ in range(gpus)])
    body = {
        "token": token,
        "worker_id": f"w-{uuid4().hex[:12]}",
        "public_key": key.public_key().public_bytes_raw().hex(),
        "name": "box",
        "region": "eu",
        "price_per_hour": price,
        "facts": json.loads(said.model_dump_json()),
    }
    answer = await world.client().post("/agent/v1/join", json=body)
    assert answer.status_code == 200, answer.text
    again = await world.client().post("/agent/v1/join", json=body)
    assert again.json() == {**answer.json(), "created": False}
    return Machine(world, key, JoinAnswer.model_validate(answer.json()), said)
