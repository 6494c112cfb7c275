"""A node's voice for tests: joined with a real key, it says hello and sends the frames that an agent would.

Time: nothing sleeps. A test lets time pass by `age(owner, seconds)`, which moves every timestamp that a deadline looks at
into the past on the database's own clock.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import (
    Accept,
    AliveAttempt,
    Artefact,
    Checkpoint,
    Decline,
    Desired,
    DesiredAttempt,
    Down,
    Exit,
    Finished,
    Hello,
    Log,
    NodeFacts,
    Progress,
    Running,
    Status,
    Stream,
    Up,
    hello_bytes,
)
from qubix.bootstrap import Resources, scope
from qubix.controller import Controller
from qubix.jobs.model import Job, JobRequest
from qubix.kernel.ids import UserId
from tests.fakes.nodes import facts, gpu, person, request, sample

NONCE = "nonce"


@dataclasses.dataclass
class Voice:
    """One node as its agent would speak for it."""

    resources: Resources
    key: Ed25519PrivateKey
    node_id: UUID
    provider_id: UUID
    owner_id: UserId
    device_uuids: tuple[str, ...]
    facts: NodeFacts
    session: UUID | None = None
    token: str = ""
    seq: int = 0

    async def hello(self) -> Desired:
        """Open a session; it is the current one from now on."""
        hello = Hello(node=self.node_id, signature=self.key.sign(hello_bytes(NONCE, self.node_id)).hex(), facts=self.facts)
        async with scope(self.resources) as s:
            opened = await s.sessions.open(hello, NONCE)
        self.session, self.token, self.seq = opened.welcome.session, opened.welcome.token, 0
        await self.status()
        return opened.desired

    async def say(self, *frames: Up) -> list[Down]:
        """Send frames in one transaction; returns the answers."""
        async with scope(self.resources) as s:
            return list((await s.frames.receive_many(self.node_id, frames)).answers)

    async def status(self, *alive: DesiredAttempt, generation: int | None = None, with_sample: bool = True) -> list[Down]:
        """A heartbeat that names these attempts."""
        assert self.session is not None
        self.seq += 1
        if generation is None:
            async with scope(self.resources) as s:
                desired = await s.sessions.desired(self.node_id)
            generation = desired.generation if desired else 0
        return await self.say(
            Status(
                session=self.session,
                seq=self.seq,
                generation=generation,
                alive=tuple(AliveAttempt(id=a.id, fence=a.fence) for a in alive),
                sample=sample(self.device_uuids) if with_sample else None,
            )
        )

    async def desired(self) -> tuple[DesiredAttempt, ...]:
        """What the node should run now."""
        async with scope(self.resources) as s:
            desired = await s.sessions.desired(self.node_id)
        return desired.attempts if desired else ()

    async def accept(self, attempt: DesiredAttempt) -> list[Down]:
        return await self.say(Accept(session=self._session, attempt=attempt.id, fence=attempt.fence))

    async def decline(self, attempt: DesiredAttempt, reason: str = "no sandbox") -> list[Down]:
        return await self.say(Decline(session=self._session, attempt=attempt.id, fence=attempt.fence, reason=reason))

    async def running(self, attempt: DesiredAttempt) -> list[Down]:
        return await self.say(Running(session=self._session, attempt=attempt.id, fence=attempt.fence))

    async def start(self, attempt: DesiredAttempt) -> DesiredAttempt:
        """Accept and run."""
        await self.accept(attempt)
        await self.running(attempt)
        return attempt

    async def progress(self, attempt: DesiredAttempt, pct: float) -> list[Down]:
        return await self.say(
            Progress(session=self._session, attempt=attempt.id, fence=attempt.fence, pct=pct, operation="epoch", node_at=1.0)
        )

    async def log(self, attempt: DesiredAttempt, text: str, offset: int = 0) -> list[Down]:
        return await self.say(
            Log(session=self._session, attempt=attempt.id, fence=attempt.fence, stream=Stream.OUT, offset=offset, text=text, node_at=1.0)
        )

    async def put(self, attempt: DesiredAttempt, content: bytes) -> tuple[str, int]:
        """Store bytes as the HTTP endpoint would."""
        async with scope(self.resources) as s:
            limit = await s.frames.put_limit(self.token, attempt.id, attempt.fence)
        blob = await self.resources.blobs.put(stream(content), size_max_bytes=limit, sha256=hashlib.sha256(content).hexdigest())
        async with scope(self.resources) as s:
            await s.frames.stored(self.token, attempt.id, attempt.fence, blob)
        return blob.sha256, blob.size

    async def checkpoint(self, attempt: DesiredAttempt, number: int, *, ran_ms: int, pct: float = 50.0, store: bool = True) -> list[Down]:
        content = f"{attempt.id}/{number}".encode()
        sha256, size = (await self.put(attempt, content)) if store else (hashlib.sha256(content).hexdigest(), len(content))
        return await self.say(
            Checkpoint(
                session=self._session,
                attempt=attempt.id,
                fence=attempt.fence,
                number=number,
                sha256=sha256,
                size=size,
                pct=pct,
                ran_ms=ran_ms,
            )
        )

    async def artefact(self, attempt: DesiredAttempt, name: str, content: bytes) -> list[Down]:
        sha256, size = await self.put(attempt, content)
        return await self.say(Artefact(session=self._session, attempt=attempt.id, fence=attempt.fence, name=name, sha256=sha256, size=size))

    async def finished(self, attempt: DesiredAttempt, exit: Exit = Exit.EXITED, **members: object) -> list[Down]:
        given = {"exit_code": 0 if exit is Exit.EXITED else None, "agent_ms": 10**9, **members}
        return await self.say(Finished(session=self._session, attempt=attempt.id, fence=attempt.fence, exit=exit, **given))

    async def disconnect(self) -> None:
        async with scope(self.resources) as s:
            await s.sessions.disconnected(self.node_id, self._session)

    @property
    def _session(self) -> UUID:
        assert self.session is not None
        return self.session


async def stream(content: bytes, chunk: int = 7) -> AsyncIterator[bytes]:
    """Bytes as a request's body comes."""
    for start in range(0, len(content), chunk):
        yield content[start : start + chunk]


async def voice(
    resources: Resources,
    *,
    model: str = "RTX_4090",
    gpus: int = 1,
    gib: int = 24,
    price: int = 3600,
    region: str = "eu",
    hello: bool = True,
    owner_id: UserId | None = None,
) -> Voice:
    """A node that joined, with its session open unless told otherwise. 3600 an hour is one unit a second."""
    owner_id = owner_id or await person(resources)
    key = Ed25519PrivateKey.generate()
    uuids = tuple(f"GPU-{uuid4()}" for _ in range(gpus))
    devices = [gpu(uuid, model, gib) for uuid in uuids]
    async with scope(resources) as s:
        await s.ledger.open_wallets(owner_id)
        token = (await s.providers.join_token(owner_id, "provider")).token
        asked = request(token, devices, region=region, price=price).model_copy(
            update={"public_key": key.public_key().public_bytes_raw().hex()}
        )
        made = await s.providers.join(asked)
    spoken = Voice(resources, key, made.node_id, made.provider_id, owner_id, uuids, facts(devices))
    if hello:
        await spoken.hello()
    return spoken


async def consumer(resources: Resources, owner: AsyncConnection, money: int = 1_000_000) -> UserId:
    """An account with test funds in its wallet."""
    await owner.execute(sa.text("SELECT found_ledger('none')"))
    user = await person(resources)
    async with scope(resources) as s:
        await s.ledger.open_wallets(user)
    if money:
        await owner.execute(sa.text("SELECT faucet(:user, 1::smallint, :money, 'test')"), {"user": user, "money": money})
    return user


async def submit(resources: Resources, user: UserId, **members: object) -> Job:
    """Create a job of the library: mnist, unless told otherwise."""
    async with scope(resources) as s:
        return await s.jobs.create(user, JobRequest(**{"kind": "mnist", "duration_max_s": 600, **members}))  # type: ignore[arg-type]


async def look(resources: Resources, job: Job) -> Job:
    """The job as it is now."""
    async with scope(resources) as s:
        return await s.jobs.get(job.owner_id, job.id)


async def controller(resources: Resources) -> Controller:
    """A controller that leads; the test calls its steps by hand."""
    made = Controller(resources, holder="test")
    await made.lead()
    return made


async def age(owner: AsyncConnection, seconds: float, *, nodes: bool = False) -> None:
    """Let `seconds` pass for jobs and attempts (and, with `nodes`, for the nodes' heartbeats): all their moments move back."""
    moments: dict[str, Sequence[str]] = {
        "attempts": ("created_at", "accepted_at", "running_at", "renewed_at", "start_deadline_at", "reported_at"),
        "jobs": ("created_at", "pending_at", "wait_until", "cancel_requested_at", "started_at"),
        "checkpoints": ("created_at",),
    }
    if nodes:
        moments["nodes"] = ("last_status_at", "metrics_at")
    where = {"attempts": " WHERE ended_at IS NULL", "jobs": " WHERE ended_at IS NULL"}
    for table, columns in moments.items():
        changes = ", ".join(f"{column} = {column} - make_interval(secs => :seconds)" for column in columns)
        await owner.execute(sa.text(f"UPDATE {table} SET {changes}{where.get(table, '')}"), {"seconds": float(seconds)})


async def problems(owner: AsyncConnection) -> list[str]:
    """What the ledger's audit finds; nothing is right."""
    return [f"{row.rule}: {row.n} ({row.example})" for row in await owner.execute(sa.text("SELECT * FROM audit() WHERE n > 0"))]


async def posted(owner: AsyncConnection, user: UUID) -> int:
    """The balance of the user's wallet."""
    return int(
        await owner.scalar(sa.text("SELECT posted FROM accounts WHERE owner_id = :u AND kind = 'wallet' AND asset = 1"), {"u": user}) or 0
    )


async def somebody_waits(owner: AsyncConnection) -> None:
    """Return once a transaction of this database waits for a lock. Raises: AssertionError, where none does within 10 s."""
    waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    for _ in range(200):
        if await owner.scalar(waits):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody waits for a lock")
