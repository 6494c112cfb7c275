"""The database that migrations build is the declared one: tables, functions, triggers, constraints, grants, first rows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from migrations.freeze import dump
from qubix.postgres import migrate
from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.conftest import Database, drop

pytestmark = pytest.mark.postgres

Empty = Callable[[], Awaitable[str]]


@pytest.fixture
async def empty(postgres: EmbeddedServer) -> AsyncIterator[Empty]:
    """Makes empty databases; answers with their URLs."""
    names: list[str] = []

    async def make() -> str:
        names.append(f"m_{uuid4().hex[:12]}")
        admin = await asyncpg.connect(postgres.url(OWNER, "postgres"))
        await admin.execute(f"CREATE DATABASE {names[-1]}")
        await admin.close()
        return postgres.url(OWNER, names[-1])

    yield make
    for name in names:
        await drop(postgres, name)


async def test_migrations_build_the_declared_schema_to_the_letter(database: Database, empty: Empty) -> None:
    migrated, reloaded = await empty(), await empty()
    await migrate.upgrade(migrated)
    # PostgreSQL prints some expressions with fewer parentheses once they were dumped and read again: read the declared ones again, too.
    connection = await asyncpg.connect(reloaded)
    await connection.execute(
        re.sub(r"^CREATE SCHEMA public;\n", "", "SET check_function_bodies = off;\n" + dump(database.url()), flags=re.M)
    )
    await connection.close()
    assert dump(migrated).splitlines() == dump(reloaded).splitlines(), "run `python -m migrations.freeze`, or write a migration"


async def test_alembic_sees_no_difference_and_a_second_upgrade_changes_nothing(empty: Empty) -> None:
    migrated = await empty()
    await migrate.upgrade(migrated)
    await migrate.check(migrated)
    before = dump(migrated)
    await migrate.upgrade(migrated)
    assert dump(migrated) == before
