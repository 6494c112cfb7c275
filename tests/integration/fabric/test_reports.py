"""What the fabric daemon's narrow database role can do, and that it can do nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources
from qubix.fabric.reports import SqlNodeReports
from qubix.postgres.engine import make_engine
from tests.conftest import Database
from tests.fakes import nodes

pytestmark = pytest.mark.postgres


@pytest.fixture
async def reports(database: Database) -> AsyncIterator[SqlNodeReports]:
    engine = make_engine(database.url("qubix_fabric"), pool_size=1)
    yield SqlNodeReports(engine)
    await engine.dispose()


async def test_a_node_is_known_by_its_ray_id_and_dies_once(reports: SqlNodeReports, resources: Resources, owner: AsyncConnection) -> None:
    joined = await nodes.join(resources)
    look = sa.text("SELECT ray_node_id, dead_at FROM nodes WHERE id = :id")
    await reports.node_seen(joined.worker_id, "ray-1", {})
    assert (await owner.execute(look, {"id": joined.node_id})).one() == ("ray-1", None)
    await reports.node_dead("ray-1")
    first = (await owner.execute(look, {"id": joined.node_id})).one().dead_at
    await reports.node_dead("ray-1")
    assert (await owner.execute(look, {"id": joined.node_id})).one().dead_at == first
    await reports.node_seen(joined.worker_id, "ray-2", {})
    await reports.node_dead("ray-1")
    assert (await owner.execute(look, {"id": joined.node_id})).one() == ("ray-2", None)


async def test_a_worker_that_nobody_knows_changes_nothing(reports: SqlNodeReports) -> None:
    await reports.node_seen("nobody", "ray-1", {})
    await reports.node_dead("ray-9")


async def test_a_token_is_made_for_a_provider_that_exists(reports: SqlNodeReports, resources: Resources) -> None:
    joined = await nodes.join(resources)
    token = await reports.join_token(joined.provider_id)
    assert token is not None
    assert token.startswith("qj_")
    assert await reports.join_token(uuid4()) is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM accounts",
        "UPDATE nodes SET state = 'left'",
        "SELECT * FROM join_tokens",
        "SELECT * FROM users",
        "SELECT public_key FROM nodes",
    ],
)
async def test_the_fabrics_role_reads_and_writes_nothing_else(database: Database, statement: str) -> None:
    engine = make_engine(database.url("qubix_fabric"), pool_size=1)
    try:
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with engine.begin() as connection:
                await connection.execute(sa.text(statement))
    finally:
        await engine.dispose()
