"""The database that migrations build is the declared one: tables, functions, triggers, constraints, grants, first rows."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from migrations.freeze import dump
from qubix.postgres import migrate
from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.conftest import Database, drop

pytestmark = pytest.mark.postgres


async def test_migrations_build_the_declared_schema_to_the_letter(postgres: EmbeddedServer, database: Database) -> None:
    name = f"m_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.url(OWNER, "postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    try:
        url = postgres.url(OWNER, name)
        await migrate.upgrade(url)
        assert dump(url).splitlines() == dump(database.url()).splitlines(), "run `python -m migrations.freeze`, or write a migration"
        await migrate.check(url)
        await migrate.upgrade(url)
    finally:
        await drop(postgres, name)
