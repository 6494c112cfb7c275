"""Wakes and listeners through the loss of their connections."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.postgres import engine as engines
from qubix.postgres.engine import Listener
from serve_app.web import make_web
from tests.conftest import Database

WAIT_S = 10


async def cut(owner: AsyncConnection, name: str) -> None:
    """End every connection of this test's database that calls itself `name`, as a restarting server does."""
    found = sa.text("""SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = :name AND pid <> pg_backend_pid()""")
    assert await owner.scalar(found, {"name": name})


async def test_a_wake_that_meets_a_broken_connection_is_sent_again(resources: Resources, owner: AsyncConnection) -> None:
    listener = resources.listen("nodes", idle_s=WAIT_S)
    await listener._ensure()
    async with scope(resources) as s:
        await s.connection.execute(sa.text("SELECT 1"))
    await cut(owner, "qubix")
    resources.wakes.send({("nodes", "n1")})
    assert await listener.__anext__() == {"n1"}
    await listener.close()


@pytest.mark.parametrize("error", [asyncpg.InterfaceError("connection is closed"), asyncpg.InternalClientError("another operation")])
async def test_a_listener_outlives_whatever_the_driver_raises_while_it_connects(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse(_: object) -> None:
        raise error

    listener = resources.listen("jobs", idle_s=0.01)
    with monkeypatch.context() as broken:
        broken.setattr(engines, "connect", refuse)
        assert await listener.__anext__() == set()
    assert await listener.__anext__() == set()
    assert listener.connections == 1
    await listener.close()


@dataclasses.dataclass
class Socket:
    """An agent's socket that notes when it is told to look."""

    told: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def refresh(self) -> None:
        self.told.set()


async def test_a_replica_that_was_deaf_tells_every_agent_to_look(resources: Resources, owner: AsyncConnection) -> None:
    web, socket = make_web(resources), Socket()
    async with web.background(), asyncio.timeout(WAIT_S):
        web.agents.add(uuid4(), socket)
        await socket.told.wait()
        socket.told.clear()
        await cut(owner, "qubix listener")
        await socket.told.wait()


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_that_meets_a_wake_still_ends_the_listening(resources: Resources, turns: int) -> None:
    async def listen(listener: Listener) -> None:
        async for _ in listener:
            pass

    async with resources.listen("nodes", idle_s=WAIT_S) as listener:
        await listener._ensure()
        listening = asyncio.create_task(listen(listener))
        await asyncio.sleep(0.02)
        listener._hear(None, 0, "", "n1")
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()
        await asyncio.wait([listening], timeout=1)
        assert listening.cancelled()


async def test_a_replica_that_stops_leaves_no_connection_open(resources: Resources, owner: AsyncConnection) -> None:
    listening = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qubix listener'")
    async with make_web(resources).background(), asyncio.timeout(WAIT_S):
        while await owner.scalar(listening) != 4:
            pass
    async with asyncio.timeout(WAIT_S):
        while await owner.scalar(listening):
            pass


async def test_a_process_stops_in_bounded_time_though_the_database_does_not_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CLOSE_TIMEOUT_S", 0.2)
    held = database.resources()
    async with scope(held) as s:
        server = await s.connection.scalar(sa.text("SELECT pg_backend_pid()"))
    listener = held.listen("nodes", idle_s=0.01)
    await listener.__anext__()
    assert listener._connection is not None
    pids = (int(server or 0), listener._connection.get_server_pid())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(WAIT_S / 2):
            held.wakes.send({("nodes", "n1")})
            await listener.close()
            await held.close()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
