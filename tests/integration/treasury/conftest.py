"""A treasury over a database of its own and a devnet that the module shares; what the signer does is done by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.conftest import Database
from tests.integration.chains.conftest import devnet as devnet
from tests.integration.chains.conftest import process as process
from tests.integration.chains.devnet_process import Devnet
from tests.integration.ledger.people import born
from tests.integration.treasury.till import Till, open_till


@pytest.fixture
async def till(database: Database, owner: AsyncConnection, devnet: Devnet) -> AsyncIterator[Till]:
    """Two endpoints, both doors of the devnet."""
    await born(owner, "devnet")
    async with open_till(database, owner, devnet, doors=("", "/b")) as made:
        yield made


@pytest.fixture
async def sole(database: Database, owner: AsyncConnection, devnet: Devnet) -> AsyncIterator[Till]:
    """One endpoint alone."""
    await born(owner, "devnet")
    async with open_till(database, owner, devnet, doors=("",)) as made:
        yield made


@pytest.fixture(params=[("", "/b"), ("",)], ids=["two", "sole"])
async def either(request: pytest.FixtureRequest, database: Database, owner: AsyncConnection, devnet: Devnet) -> AsyncIterator[Till]:
    """Two endpoints, and then one alone."""
    await born(owner, "devnet")
    async with open_till(database, owner, devnet, doors=request.param) as made:
        yield made
