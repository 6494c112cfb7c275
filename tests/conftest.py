"""Fixtures that every test may use: the real PostgreSQL, a database of one's own, and the walls around unit tests."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, open_resources
from qubix.postgres import schema
from qubix.postgres.embedded import OWNER, EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.settings import Settings
from tests.fakes.ray_world import ray_world as ray_world
from tests.whole import Whole, whole_platform

TEMPLATE = "qubix_template"
MEMORY_FREE_MIN = 4 << 30
"""Bytes that have to be free there."""
UNIT = Path(__file__).parent / "unit"


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C: fixtures stop the servers that they started. What Hypothesis tries may take as long as the machine's load makes it."""
    hypothesis.settings.register_profile("qubix", deadline=None)
    hypothesis.settings.load_profile("qubix")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


SHARED = frozenset({"whole", "ray_world", "subject"})
"""Platforms that live from their first test to the last of all, and take CPU while they idle; a contract's subject may ask for one."""

ALONE: Final = tuple(Path(__file__).parent / name for name in ("cluster", "contract", "faults", "jobs_library", "sandbox"))
HEAVY: Final = ("cluster", "sandbox")
"""Folders and marks of tests that take every processor, or look at all processes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of shared platforms come last; `make test` runs what is not marked as alone on every processor at once, and then the rest."""
    items.sort(key=_shares)
    for item in items:
        if _shares(item) or any(item.path.is_relative_to(folder) for folder in ALONE) or any(map(item.get_closest_marker, HEAVY)):
            item.add_marker("alone")


def _shares(item: pytest.Item) -> bool:
    return not SHARED.isdisjoint(getattr(item, "fixturenames", ())) and not item.path.is_relative_to(UNIT)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """What a module leaves open fails its own last test, and not whichever test the collector happens to run in."""
    yield
    gc.collect()


class Database:
    """One test's own database, with a URL per role."""

    def __init__(self, server: EmbeddedServer, name: str, data_dir: Path) -> None:
        self.server = server
        self.name = name
        self.data_dir = data_dir

    def url(self, role: str = OWNER) -> str:
        return self.server.url(role, self.name)

    def resources(self, role: str = "qubix_web", **settings: object) -> Resources:
        """Resources of a process that logs in as `role`; the test closes them."""
        return open_resources(Settings(data_dir=self.data_dir, **settings), url=self.url(role), pool_size=5)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """A real server without flushes, with the declared schema in a template database."""
    data, runtime = Path(tempfile.mkdtemp(prefix="qubix-test-", dir=_in_memory())), Path(tempfile.mkdtemp(prefix="qt-", dir="/tmp"))
    server = EmbeddedServer(
        data / "server", runtime, options={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}, sync=False
    )
    server.start()
    try:
        asyncio.run(_make_template(server))
        yield server
    finally:
        server.stop()
        shutil.rmtree(runtime, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


def _in_memory() -> str | None:
    """A folder in memory for the test server's files, None where there is not the room: a database of one's own takes 0.02 s there, on a disk up to 1 s."""
    try:
        return "/dev/shm" if shutil.disk_usage("/dev/shm").free > MEMORY_FREE_MIN and os.access("/dev/shm", os.W_OK) else None
    except OSError:
        return None


async def _make_template(server: EmbeddedServer) -> None:
    admin = await asyncpg.connect(server.url(OWNER, "postgres"))
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    engine = make_engine(server.url(OWNER, TEMPLATE), pool_size=1)
    try:
        async with engine.begin() as connection:
            await schema.create(connection)
    finally:
        await engine.dispose()


async def clone(server: EmbeddedServer, name: str) -> None:
    """Make database `name` from the template."""
    admin = await asyncpg.connect(server.url(OWNER, "postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    finally:
        await admin.close()


async def drop(server: EmbeddedServer, name: str) -> None:
    """Drop database `name`, whoever is still connected."""
    admin = await asyncpg.connect(server.url(OWNER, "postgres"))
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def database(postgres: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh database with the declared schema."""
    name = f"t_{uuid4().hex[:12]}"
    await clone(postgres, name)
    yield Database(postgres, name, tmp_path)
    await drop(postgres, name)


@pytest.fixture
async def resources(database: Database) -> AsyncIterator[Resources]:
    """Resources of the web role over a fresh database."""
    held = database.resources()
    yield held
    await held.close()


@pytest.fixture
async def controller_resources(database: Database) -> AsyncIterator[Resources]:
    """Resources of the controller role over the same fresh database."""
    held = database.resources("qubix_controller")
    yield held
    await held.close()


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[AsyncConnection]:
    """An autocommitting connection of the owner: to arrange and to look, never what a test is about."""
    engine = make_engine(database.url(), pool_size=1)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sa.text("SELECT 1"))
        yield connection
    await engine.dispose()


@pytest.fixture(autouse=True)
def unit_walls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests/unit, sockets and real sleeping raise."""
    if not Path(request.node.path).is_relative_to(UNIT):
        return

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a unit test opens no socket and never sleeps: move it to tests/integration, or use a fake")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: refuse() if seconds else None)


@pytest.fixture(scope="session")
def whole() -> Iterator[Whole]:
    """The whole product with two machines; shared by all tests that need one and leave it as they found it."""
    with whole_platform() as platform:
        yield platform
