"""Knowing a hash is not having the bytes: what an agent may name, fetch and fill, beyond its own attempts' own bytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import sqlalchemy as sa

from qubix.agent.protocol import Accept, Ack, Artefact, Checkpoint, DesiredAttempt, Grant, Missing, Running
from qubix.controller import Controller
from tests.api.conftest import Person, World
from tests.api.machines import Machine, machine

SECRET = b"the owner's unpublished weights"
LIMIT_BYTES = 64 << 20


@contextlib.asynccontextmanager
async def running(world: World, consumer: Person, node: Machine, **members: Any) -> AsyncIterator[DesiredAttempt]:
    """A job of the consumer that runs on the machine."""
    async with node.connected():
        body = {"kind": "mnist", "duration_max_s": 60, **members}
        assert (await consumer.http.post("/api/jobs/create", json=body)).status_code == 201
        attempt = await node.work()
        spoken = {"session": node.session, "attempt": attempt.id, "fence": attempt.fence}
        await node.say(Accept(**spoken))
        await node.hear(Grant)
        await node.say(Running(**spoken))
        await node.hear(Ack)
        yield attempt


async def test_a_hash_that_the_attempt_never_sent_leads_to_nobodys_bytes(served: World, controller: Controller) -> None:
    owner, thief = await served.person("owner"), await served.person("thief", funds=10_000_000)
    assert (await owner.http.put("/api/uploads", params={"filename": "weights.pt"}, content=SECRET)).status_code == 201
    node = await machine(served, thief)
    stolen = {"sha256": hashlib.sha256(SECRET).hexdigest(), "size": len(SECRET)}
    async with running(served, thief, node) as attempt:
        spoken = {"session": node.session, "attempt": attempt.id, "fence": attempt.fence}
        await node.say(Artefact(**spoken, name="loot.bin", **stolen))
        assert (await node.hear(Missing)).keys == (f"{attempt.id}/artefact/loot.bin",)
        await node.say(Checkpoint(**spoken, number=1, pct=1, ran_ms=1, **stolen))
        assert (await node.hear(Missing)).keys == (f"{attempt.id}/checkpoint/1",)
        job = (await thief.http.get("/api/jobs")).json()["items"][0]
        assert (await thief.http.get(f"/api/jobs/{job['id']}/artefacts")).json()["items"] == []
        assert (await node.put(attempt, SECRET)).status_code == 204
        await node.say(Artefact(**spoken, name="loot.bin", **stolen))
        assert (await node.hear(Ack)).key == f"{attempt.id}/artefact/loot.bin"


async def test_bytes_that_no_frame_names_count_against_the_attempts_disk(served: World, controller: Controller) -> None:
    provider = await served.person("provider", funds=10_000_000)
    node = await machine(served, provider)
    async with running(served, provider, node, needs={"disk_bytes": LIMIT_BYTES}) as attempt:
        half = LIMIT_BYTES // 2
        answers = [(await node.put(attempt, bytes([number]) * (half - 1))).status_code for number in range(3)]
        assert answers == [204, 204, 413]


async def test_two_puts_at_once_share_the_attempts_disk(served: World, controller: Controller) -> None:
    provider = await served.person("provider", funds=10_000_000)
    node = await machine(served, provider)
    release = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield bytes(1000)
        await release.wait()

    async with running(served, provider, node, needs={"disk_bytes": LIMIT_BYTES}) as attempt:
        assert node.welcome is not None
        target = f"/agent/v1/attempts/{attempt.id}/{attempt.fence}/blobs/{hashlib.sha256(bytes(1000)).hexdigest()}"
        client = served.client(node.welcome.token)
        first: asyncio.Task[httpx.Response] | None = None
        small, status = b"small", 204
        while status == 204:  # until the slow one has its room; it may come in just while a small one has it
            if first is None or first.done():
                first = asyncio.create_task(client.put(target, content=slowly()))
            await asyncio.sleep(0.02)
            small += b"."
            answer = await node.put(attempt, small)
            status = answer.status_code
        assert first is not None
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        release.set()
        assert (await first).status_code == 204
        assert (await node.put(attempt, small)).status_code == 204


async def test_bytes_that_our_disk_refuses_are_noted_as_the_platforms_trouble(served: World, controller: Controller) -> None:
    provider = await served.person("provider", funds=10_000_000)
    node = await machine(served, provider)
    failed = sa.text("SELECT storage_failed_at IS NOT NULL FROM attempts")
    async with running(served, provider, node) as attempt:
        folder = served.resources.settings.data_dir / "blobs"
        folder.write_text("a file, where a folder should be")
        assert (await node.put(attempt, b"result")).status_code == 503
        assert await served.owner.scalar(failed) is True
        folder.unlink()
        assert (await node.put(attempt, b"result")).status_code == 204
        assert await served.owner.scalar(failed) is False
