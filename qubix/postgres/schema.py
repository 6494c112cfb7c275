"""The declared schema: every noun's tables and SQL files, made in one go in an empty database.

Production databases are built by migrations instead; a test compares the two, so neither can drift.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

import qubix
from qubix.postgres.metadata import metadata, sql_files

ROLES: Final = ("qubix_web", "qubix_controller", "qubix_fabric", "qubix_treasury", "qubix_signer")
"""The login roles of the processes; each may call only its own acts."""


def load() -> sa.MetaData:
    """Import every noun's store, so that the metadata is complete. Returns the metadata."""
    for module in pkgutil.iter_modules(qubix.__path__):
        if not module.ispkg:
            continue
        for name in ("store", "outbox", "leader"):
            dotted = f"qubix.{module.name}.{name}"
            if importlib.util.find_spec(dotted) is not None:
                importlib.import_module(dotted)
    return metadata


async def create(connection: AsyncConnection) -> None:
    """Make all tables, functions, triggers, views and grants. The database must be empty and the roles must exist."""
    tables = load()
    await connection.run_sync(tables.create_all)
    for file in sql_files():
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101  (typing: an open connection has a driver)
        await driver.execute(file.path.read_text())
