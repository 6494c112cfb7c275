"""Signer and treasury as two processes on a devnet with a clock: a deposit comes in, is swept, and a withdrawal goes out, by nobody's hand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.chains.devnet_process import Devnet, Person
from tests.integration.ledger.people import posted, problems
from tests.integration.signer.conftest import World

PAYEE = Person(760)
WHOLE_S = 60.0
ROLES = {"signer": "qubix_signer", "treasurer": "qubix_treasury"}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A network that runs by itself, ten ticks a second."""
    made = Devnet(tmp_path_factory.mktemp("devnet"), 0.1)
    try:
        yield made
    finally:
        made.stop()


async def test_p_b13_a08_what_comes_in_is_swept_and_goes_out_again_exactly_once(world: World, tmp_path: Path) -> None:
    ann = await world.user()
    address = str(await world.value("SELECT identity FROM chain_addresses WHERE user_id = :ann", ann=ann))
    logs = {name: (tmp_path / f"{name}.log").open("wb") for name in ("signer", "treasurer")}
    environment = {name: world.environment(QUBIX_DATABASE_URL_FILE=str(world.url_file(role))) for name, role in ROLES.items()}
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"qubix.{name}", env=environment[name], stdout=log, stderr=subprocess.STDOUT
        )
        for name, log in logs.items()
    ]

    async def until(sql: str, **values: object) -> None:
        deadline = time.monotonic() + WHOLE_S
        while not await world.value(sql, **values):
            assert time.monotonic() < deadline, f"{sql}: {await world.payments()}"
            await asyncio.sleep(0.1)

    try:
        await until("SELECT cursor > 0 FROM chain_state")
        world.devnet.order("/faucet", identity=address, amount=900)
        await until("SELECT posted = 900 FROM accounts WHERE owner_id = :ann AND kind = 'wallet' AND asset = 1", ann=ann)
        holds = [await world.withdraws(ann, amount, PAYEE.identity) for amount in (300, 300)]
        await until("SELECT count(*) = 2 FROM holds WHERE state = 'CAPTURED' AND id = ANY(:holds)", holds=holds)
        await until("SELECT NOT EXISTS (SELECT 1 FROM payments WHERE ended_at IS NULL)")
    finally:
        for one in running:
            one.terminate()
        codes = [await one.wait() for one in running]
        for log in logs.values():
            log.close()
    assert codes == [0, 0]
    assert world.has(PAYEE.identity) == 600
    assert (world.has(await world.address("hot")), await posted(world.owner, ann)) == (300, 300)
    states = [(payment.kind, payment.state) for payment in await world.payments()]
    assert states == [("sweep", "PAID"), ("payout", "PAID"), ("payout", "PAID")]
    assert await problems(world.owner) == []
