"""Engines: SQLAlchemy over asyncpg, one per process and role, from a URL that lives in a file of mode 0600."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from pathlib import Path
from typing import Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from qubix.kernel.errors import Invalid
from qubix.kernel.tasks import end

POOL_SIZE: Final = 10
"""Connections that stay open once a peak has opened them; twice as many at the most. Each costs PostgreSQL a process of 12 to 15 MB; but a
new one asks the server what its types are before it is of use, so a peak had better not open and close them all the time."""
POOL_TIMEOUT_S = 10
POOL_RECYCLE_S: Final = 900
"""A connection is replaced after this long: PostgreSQL's process and our driver keep what they learned of every table and statement for
as long as it lives. The one used last is used next, so few learn all of it."""
WAKE_TRIES_MAX = 3
WAKE_PAUSE_S = 0.5
CONNECT_TIMEOUT_S = 10.0
LOCK_TIMEOUT: Final = "20s"
"""Shorter than COMMAND_TIMEOUT_S: when the server gives up a wait, nothing is kept; when our side does, a COMMIT may yet succeed."""
COMMAND_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S = 5.0
"""How long a process that stops waits for the database to take leave: it may be gone, or stopped itself."""
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
        pool_use_lifo=True,
        pool_recycle=POOL_RECYCLE_S,
        # An error's text goes to the logs; the values of a statement (hashes of passwords and tokens, users' texts) do not.
        hide_parameters=True,
        connect_args={
            "server_settings": {"application_name": "qubix", "jit": "off", "lock_timeout": LOCK_TIMEOUT},
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": COMMAND_TIMEOUT_S,
        },
    )


async def connect(engine: AsyncEngine) -> asyncpg.Connection:
    """A connection outside the pool, to listen on. The caller closes it."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    settings = {"application_name": "qubix listener"}
    return await asyncpg.connect(url, server_settings=settings, timeout=CONNECT_TIMEOUT_S, command_timeout=30)


async def dispose(engine: AsyncEngine) -> None:
    """Close the pool's idle connections; gives up after CLOSE_TIMEOUT_S, where the database does not answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await engine.dispose()


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
        """Wait until everything queued so far has been sent; what is not on its way after CLOSE_TIMEOUT_S is dropped."""
        if self._sender is None:
            return
        _, late = await asyncio.wait([self._sender], timeout=CLOSE_TIMEOUT_S)
        await end(late)

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

    Whoever listens closes it: `async with resources.listen(…) as listener`. Survives the loss of its connection: it reconnects, and the empty set tells its reader to look for itself. Who does not
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

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> set[str]:
        await self._ensure()
        try:
            async with asyncio.timeout(self._idle_s):  # wait_for would swallow a cancellation that meets a wake
                await self._wake.wait()
        except TimeoutError:
            return set()
        self._wake.clear()
        heard, self._heard = self._heard, set()
        return heard

    async def close(self) -> None:
        """Stop listening, whether the server answers or not."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(*DRIVER_TROUBLE):
                await connection.close(timeout=CLOSE_TIMEOUT_S)

    async def _ensure(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        try:
            connection = await connect(self._engine)
        except DRIVER_TROUBLE:
            return  # the server is away; the idle time-out paces the next try
        try:
            await connection.add_listener(self._channel, self._hear)
        except BaseException as error:  # a cancellation too: nobody else knows this connection
            connection.terminate()
            if isinstance(error, DRIVER_TROUBLE):
                return
            raise
        self._connection = connection
        self.connections += 1

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._heard.add(str(payload))
        self._wake.set()
