"""What a backup asks of a database: what it is, which bytes its rows refer to, and whether another is fit to be restored into."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from qubix.backup.model import Manifest, NotEmpty
from qubix.kernel.errors import Invalid, Unavailable
from qubix.postgres.engine import DRIVER_TROUBLE
from qubix.postgres.schema import ROLES

CONNECT_S: Final = 10.0
COMMAND_S: Final = 600.0

# Every row that must have its file. What nothing refers to is garbage of at most a day, and is left out.
_REFERRED: Final = """
SELECT b.sha256, b.size FROM blobs b WHERE b.sha256 IN (
  SELECT sha256 FROM checkpoints UNION SELECT sha256 FROM artefacts UNION SELECT sha256 FROM job_inputs UNION SELECT sha256 FROM uploads)
"""
_FACTS: Final = """
SELECT clock_timestamp() AS taken_at, current_setting('server_version') AS postgres_version, (SELECT version_num FROM alembic_version) AS revision,
       (SELECT network FROM ledger_network) AS network, (SELECT coalesce(max(position), 0) FROM events) AS position, (SELECT cursor FROM chain_state) AS tick
"""
_COUNTED: Final = ("users", "jobs", "transfers", "holds", "payments", "uploads", "artefacts")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database says of itself at one moment; the fields are the manifest's."""

    taken_at: dt.datetime
    postgres_version: str
    revision: str
    network: str | None
    position: int
    tick: int | None
    rows: dict[str, int]


class Source:
    """One connection to the database that is backed up, or was restored."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def server_version(self) -> int:
        """The server's version as a number: 180004 is 18.4."""
        return int(await self._connection.fetchval("SHOW server_version_num"))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[str]:
        """One moment, which pg_dump sees too by the name that this gives. Nobody waits for it."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            await self._connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield str(await self._connection.fetchval("SELECT pg_export_snapshot()"))

    async def facts(self) -> Facts:
        """What the manifest says. Raises: Invalid for a database that is no Qubix ledger."""
        if await self._connection.fetchval("SELECT to_regclass('alembic_version') IS NULL OR to_regclass('ledger_network') IS NULL"):
            raise Invalid("this database has no ledger of Qubix", next_step="name the platform's own database")
        row = await self._connection.fetchrow(_FACTS)
        assert row is not None  # noqa: S101  (typing: there is always one)
        # nosemgrep: sql-from-text  (constants)
        rows = {table: int(await self._connection.fetchval(f"SELECT count(*) FROM {table}")) for table in _COUNTED}  # noqa: S608  (constants)
        return Facts(rows=rows, **row)

    async def blobs(self) -> dict[str, int]:
        """The bytes that rows refer to: size by SHA-256."""
        return {row["sha256"]: row["size"] for row in await self._connection.fetch(_REFERRED)}

    async def seed(self) -> tuple[str, bytes] | None:
        """One of the signer's sealed seeds with its identity, to try a key file on; None where there is none."""
        row = await self._connection.fetchrow("SELECT identity, sealed FROM signer_keys ORDER BY identity LIMIT 1")
        return None if row is None else (row["identity"], bytes(row["sealed"]))

    async def check_fit(self) -> None:
        """See that a backup can be restored here. Raises: NotEmpty; Invalid, naming what lacks."""
        found = await self._connection.fetch(
            """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relkind IN ('r','p','v','m','S','f') LIMIT 1"""
        )
        if found:
            raise NotEmpty(
                f"the database has something in it already (the table {found[0]['relname']})",
                next_step="restore into a database that was just made: nothing is ever overwritten",
            )
        known = {row["rolname"] for row in await self._connection.fetch("SELECT rolname FROM pg_roles")}
        if lacking := [role for role in ROLES if role not in known]:
            raise Invalid(
                f"this server lacks the login roles {', '.join(lacking)}",
                next_step="make them first, each with a password of its own: cluster_configs/minimal/README.md",
            )


@asynccontextmanager
async def open_source(url: str) -> AsyncIterator[Source]:
    """A connection of its own. Raises: Unavailable when the database does not answer."""
    try:
        connection = await asyncpg.connect(
            re.sub(r"^postgresql\+\w+:", "postgresql:", url),
            timeout=CONNECT_S,
            command_timeout=COMMAND_S,
            server_settings={"application_name": "qubix backup"},
        )
    except DRIVER_TROUBLE as error:
        raise Unavailable(f"the database does not answer: {error}", next_step="is it running, and is the URL file its owner's?") from error
    try:
        yield Source(connection)
    finally:
        await connection.close(timeout=CONNECT_S)


def differences(manifest: Manifest, found: Facts) -> list[str]:
    """What a restored database says otherwise than its backup did; empty when nothing was lost."""
    said: dict[str, tuple[Any, Any]] = {
        "network": (manifest.network, found.network),
        "tick": (manifest.tick, found.tick),
        **{name: (count, found.rows.get(name)) for name, count in manifest.rows.items()},
    }
    return [f"{name}: {was} in the backup, {now} here" for name, (was, now) in said.items() if was != now]
