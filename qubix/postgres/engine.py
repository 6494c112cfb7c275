"""Engines: SQLAlchemy over asyncpg, one per process and role, from a URL that lives in a file of mode 0600."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from qubix.kernel.errors import Invalid

POOL_SIZE = 10
POOL_TIMEOUT_S = 10
WAKE_TRIES_MAX = 3
WAKE_PAUSE_S = 0.5
DRIVER_TROUBLE: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when the server goes away: its last two are no PostgresErrors."""


def read_url_file(path: Path) -> str:
    """The database URL in `path`.

    Raises: Invalid when the file is missing, or readable by others.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise Invalid(f"there is no database URL file at {path}", next_step="set QUBIX_DATABASE_URL_FILE") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Invalid(f"{path} holds a password and others may read it", next_step=f"chmod 600 {path}")
    return path.read_text().strip()


def make_engine(url: str, *, pool_size: int = POOL_SIZE) -> AsyncEngine:
    """An engine for a `postgresql://` URL; each connection has prepared statements and JSON as text on our side."""
    return create_async_engine(
        sa.make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=False,
        # An error's text goes to the logs; the values of a statement (hashes of passwords and tokens, users' texts) do not.
        hide_parameters=True,
        connect_args={"server_settings": {"application_name": "qubix", "jit": "off"}, "command_timeout": 30},
    )


async def connect(engine: AsyncEngine) -> asyncpg.Connection:
    """A connection outside the pool, to listen on. The caller closes it."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(url, server_settings={"application_name": "qubix listener"}, command_timeout=30)


class Wakes:
    """Content-free NOTIFYs, sent after the commit, coalesced: what was asked for while one was on its way goes in one more.

    A NOTIFY inside every commit cuts throughput to a third, so a transaction only says whom it wants woken. One that meets a
    broken connection is sent again; one that is lost all the same only delays, for everybody who waits for one also looks
    by itself, though an idle node as rarely as its heartbeats come.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._due: set[tuple[str, str]] = set()
        self._sender: asyncio.Task[None] | None = None

    def send(self, wakes: set[tuple[str, str]]) -> None:
        """Queue (channel, payload) pairs; returns at once."""
        if not wakes:
            return
        self._due |= wakes
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="wakes")

    async def flush(self) -> None:
        """Wait until everything queued so far has been sent."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        failed = 0
        while self._due:
            batch, self._due = self._due, set()
            try:
                await self._notify(batch)
                failed = 0
            except (sa.exc.SQLAlchemyError, *DRIVER_TROUBLE):
                failed += 1
                if failed < WAKE_TRIES_MAX:
                    self._due |= batch
                    await asyncio.sleep(WAKE_PAUSE_S)

    async def _notify(self, batch: set[tuple[str, str]]) -> None:
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(
                sa.text("SELECT pg_notify('qubix_' || c, p) FROM unnest(cast(:channels AS text[]), cast(:payloads AS text[])) AS w(c, p)"),
                {"channels": [channel for channel, _ in batch], "payloads": [payload for _, payload in batch]},
            )


class Listener:
    """Hears wakes. `async for payloads in listener`: a set of payloads, or an empty set when `idle_s` went by without one.

    Survives the loss of its connection: it reconnects, and the empty set tells its reader to look for itself. Who does not
    look at every empty set watches `connections`: when that has grown, wakes may have been missed.
    """

    def __init__(self, engine: AsyncEngine, channel: str, *, idle_s: float = 1.0) -> None:
        self._engine = engine
        self._channel = f"qubix_{channel}"
        self._idle_s = idle_s
        self._heard: set[str] = set()
        self._wake = asyncio.Event()
        self._connection: asyncpg.Connection | None = None
        self.connections = 0

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> set[str]:
        await self._ensure()
        try:
            await asyncio.wait_for(self._wake.wait(), self._idle_s)
        except TimeoutError:
            return set()
        self._wake.clear()
        heard, self._heard = self._heard, set()
        return heard

    async def close(self) -> None:
        """Stop listening."""
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close()
        self._connection = None

    async def _ensure(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        try:
            self._connection = await connect(self._engine)
            await self._connection.add_listener(self._channel, self._hear)
            self.connections += 1
        except DRIVER_TROUBLE:
            self._connection = None  # the server is away; the idle time-out paces the next try

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._heard.add(str(payload))
        self._wake.set()
