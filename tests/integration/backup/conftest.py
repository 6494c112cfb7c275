"""A ledger with money, a job that runs and its bytes, to be backed up; and empty places to restore into."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.backup.take import Taken, take
from qubix.bootstrap import Resources
from qubix.jobs.model import Job
from qubix.kernel.ids import UserId
from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.conftest import Database, drop
from tests.fakes.voices import Voice, consumer, controller, submit, voice

Empty = Callable[[], Awaitable[str]]


@dataclasses.dataclass
class Platform:
    """Args: job, which runs on the node and has sent a checkpoint; to, the folder of backups."""

    database: Database
    resources: Resources
    owner: AsyncConnection
    user: UserId
    node: Voice
    job: Job
    to: Path

    @property
    def blobs(self) -> Path:
        return self.database.data_dir / "blobs"

    async def backup(self) -> Taken:
        return await take(self.database.url(), self.blobs, self.to)


@pytest.fixture
async def platform(
    database: Database, resources: Resources, controller_resources: Resources, owner: AsyncConnection, tmp_path: Path
) -> Platform:
    await owner.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
    await owner.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
    user = await consumer(resources, owner)
    node, control = await voice(resources), await controller(controller_resources)
    job = await submit(resources, user)
    await control.step()
    (attempt,) = await node.desired()
    await node.start(attempt)
    await node.checkpoint(attempt, 1, ran_ms=1000)
    await control.publish()
    return Platform(database, resources, owner, user, node, job, tmp_path / "backups")


@pytest.fixture
async def empty(postgres: EmbeddedServer) -> AsyncIterator[Empty]:
    """Makes databases with nothing in them; answers with their owner's URLs."""
    names: list[str] = []

    async def make() -> str:
        names.append(f"b_{uuid4().hex[:12]}")
        admin = await asyncpg.connect(postgres.url(OWNER, "postgres"))
        await admin.execute(f"CREATE DATABASE {names[-1]}")
        await admin.close()
        return postgres.url(OWNER, names[-1])

    yield make
    for name in names:
        await drop(postgres, name)
