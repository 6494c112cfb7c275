"""A devnet per module, in a process of its own; a module's FUNDED are the people whom it pays first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.chains.devnet_process import Devnet


@pytest.fixture(scope="module")
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    made = Devnet(tmp_path_factory.mktemp("devnet"))
    try:
        for person in request.module.FUNDED:
            made.fund(person, 1_000_000)
        yield made
    finally:
        made.stop()


@pytest.fixture
def devnet(process: Devnet) -> Devnet:
    process.order("/faults/clear")
    process.order("/archive", lag=3)
    return process
