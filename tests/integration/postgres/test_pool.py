"""Which connection of the pool is used, and for how long."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.postgres import engine as engines
from tests.conftest import Database

pytestmark = pytest.mark.postgres


async def session(connection: AsyncConnection) -> int:
    """PostgreSQL's process behind a connection."""
    return int((await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one())


async def test_the_connection_that_was_used_last_is_used_next(database: Database) -> None:
    engine = engines.make_engine(database.url())
    async with engine.connect() as first, engine.connect() as second:
        pids = [await session(first), await session(second)]
    async with engine.connect() as third:
        assert await session(third) == pids[0]  # the outer one was returned last
    await engine.dispose()


async def test_a_connection_is_replaced_when_it_is_old(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "POOL_RECYCLE_S", 0.05)
    engine = engines.make_engine(database.url())
    async with engine.connect() as first:
        before = await session(first)
    await asyncio.sleep(0.1)
    async with engine.connect() as second:
        assert await session(second) != before
    await engine.dispose()


async def test_the_server_gives_up_a_wait_for_a_lock_before_our_side_does(database: Database) -> None:
    """Then nothing is kept; where our side gives up a COMMIT, nobody knows."""
    engine = engines.make_engine(database.url())
    async with engine.connect() as connection:
        limit_ms = await connection.scalar(sa.text("SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"))
    assert 0 < limit_ms < 1000 * engines.COMMAND_TIMEOUT_S
    await engine.dispose()
