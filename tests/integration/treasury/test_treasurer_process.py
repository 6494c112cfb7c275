"""The treasury as a process of its own: it leads, works, gives way, and stops when told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from tests.conftest import Database
from tests.integration.chains.devnet_process import Devnet
from tests.integration.ledger.people import born
from tests.integration.treasury.till import FINAL, PAYER, Till

FUNDED = (PAYER,)


async def start(database: Database, devnet: Devnet, folder: Path, network: str = "devnet", **more: str) -> asyncio.subprocess.Process:
    url_file = folder / f"treasury-{os.urandom(4).hex()}"
    url_file.write_text(database.url("qubix_treasury"))
    url_file.chmod(0o600)
    environment = {
        **os.environ,
        "QUBIX_DATABASE_URL_FILE": str(url_file),
        "QUBIX_NETWORK": network,
        "QUBIX_QUBIC_RPC_URLS": f'["{devnet.url}", "{devnet.url}/b"]',
        "QUBIX_QUBIC_REQUESTS_PER_S": "500",
        **more,
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "qubix.treasurer", env=environment)


async def credited(till: Till, user: UUID, amount: int) -> None:
    for _ in range(300):
        if await till.wallet(user) == amount:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not credited within 30 s: {await till.status()}")


async def test_it_works_gives_way_to_a_newcomer_and_stops_when_told(till: Till, tmp_path: Path) -> None:
    user, address = await till.user()
    first = await start(till.database, till.devnet, tmp_path)
    till.pay(address, 5)
    till.devnet.step(FINAL)
    await credited(till, user, 5)
    second = await start(till.database, till.devnet, tmp_path)
    assert await asyncio.wait_for(first.wait(), 30) == 3
    till.pay(address, 6)
    till.devnet.step(FINAL)
    await credited(till, user, 11)
    second.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(second.wait(), 30) == 0


async def test_killed_between_a_credits_writes_and_its_commit_it_credits_once_when_it_is_back(till: Till, tmp_path: Path) -> None:
    user, address = await till.user()
    till.pay(address, 5)
    till.devnet.step(FINAL)
    for place in ("treasury.before_credit", "treasury.credited"):
        killed = await start(till.database, till.devnet, tmp_path, QUBIX_FAILPOINT=place)
        assert await asyncio.wait_for(killed.wait(), 30) == -signal.SIGKILL
        assert await till.wallet(user) == (5 if place == "treasury.credited" else 0)
    back = await start(till.database, till.devnet, tmp_path)
    till.pay(address, 6)
    till.devnet.step(FINAL)
    await credited(till, user, 11)
    back.terminate()
    assert await asyncio.wait_for(back.wait(), 30) == 0
    await till.sound()


async def test_it_does_not_start_on_another_network_than_its_ledgers(
    database: Database, owner: AsyncConnection, devnet: Devnet, tmp_path: Path
) -> None:
    await born(owner, "devnet")
    wrong = await start(database, devnet, tmp_path, "mainnet")
    assert await asyncio.wait_for(wrong.wait(), 30) == 2
