"""A signer on the real database and a devnet that a test steps; the treasury's part is done by hand, with the owner's role."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources
from qubix.kernel.failpoints import VARIABLE
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.signer import Signer
from qubix.treasury.seeds import Sealer, make_key_file, read_key_file
from qubix.treasury.store import Deposit, TreasuryStore
from tests.conftest import Database
from tests.integration.chains.devnet_process import Devnet
from tests.integration.ledger.people import born, person

START_S = 30.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    made = Devnet(tmp_path_factory.mktemp("devnet"))
    try:
        yield made
    finally:
        made.stop()


@dataclasses.dataclass
class World:
    """Args: key_file, of the signer; signer, one that a test calls part by part."""

    database: Database
    devnet: Devnet
    owner: AsyncConnection
    resources: Resources
    key_file: Path
    signer: Signer

    @property
    def sealer(self) -> Sealer:
        return read_key_file(self.key_file)

    def url_file(self, role: str = "qubix_signer") -> Path:
        path = self.database.data_dir / f"{role}.url"
        path.touch(mode=0o600)
        path.write_text(self.database.url(role))
        return path

    def environment(self, failpoint: str = "", **more: str) -> dict[str, str]:
        """What a signer of its own process is started with."""
        given = {
            "QUBIX_DATABASE_URL_FILE": str(self.url_file()),
            "QUBIX_DATA_DIR": str(self.database.data_dir),
            "QUBIX_NETWORK": "devnet",
            "QUBIX_QUBIC_RPC_URLS": json.dumps([self.devnet.url, self.devnet.url + "/b"]),
            "QUBIX_QUBIC_REQUESTS_PER_S": "500",
            "QUBIX_SIGNER_KEY_FILE": str(self.key_file),
            **more,
        }
        return given | ({VARIABLE: failpoint} if failpoint else {})

    def process(self, log: Path, failpoint: str = "", **more: str) -> subprocess.Popen[bytes]:
        """A signer in a process of its own."""
        command = [sys.executable, "-m", "qubix.signer"]
        with log.open("ab") as file:
            return subprocess.Popen(command, env=self.environment(failpoint, **more), stdout=file, stderr=file)

    async def value(self, sql: str, **values: Any) -> Any:
        """The first column of the first row, as the owner."""
        return await self.owner.scalar(sa.text(sql), values)

    async def address(self, purpose: str) -> str:
        return str(
            await self.value("SELECT identity FROM chain_addresses WHERE purpose = :purpose AND user_id IS NULL LIMIT 1", purpose=purpose)
        )

    async def user(self, money: int = 0) -> UUID:
        """Somebody with a deposit address and money that came in there."""
        who = await person(self.owner)
        assert await self.value("SELECT give_address(:who)", who=who)
        if money:
            await self.comes_in(str(await self.value("SELECT identity FROM chain_addresses WHERE user_id = :who", who=who)), money)
        return who

    async def comes_in(self, address: str, amount: int) -> None:
        """Money on chain, and in the ledger."""
        paid = self.devnet.order("/faucet", identity=address, amount=amount)
        self.devnet.step(3)
        deposit = Deposit(paid["transactionId"], 0, Asset.QUBIC, Qu(amount), address, paid["tick"], "by hand", "PAYER")
        assert await TreasuryStore(self.owner).deposit([deposit]) == [Code.DONE]

    async def withdraws(self, who: UUID, amount: int, address: str) -> UUID:
        """A withdrawal that was asked for."""
        hold = uuid4()
        assert await TreasuryStore(self.owner).withdraw(hold, who, Asset.QUBIC, Qu(amount), address) is Code.DONE
        return hold

    async def payments(self, where: str = "true") -> list[sa.Row[Any]]:
        return list(await self.owner.execute(sa.text(f"SELECT * FROM payments WHERE {where} ORDER BY signed_at, id")))

    async def send(self) -> int:
        """Broadcast what is signed, let its tick pass, and book it, as the treasury does. Returns how many payments that were."""
        due = await self.payments("state = 'SIGNED'")
        for payment in due:
            assert self.devnet.send(payment.encoded).status_code == 200
        if due:
            self.devnet.step(max(payment.tick for payment in due) + 4 - self.devnet.tick)
        store = TreasuryStore(self.owner)
        for payment in due:
            assert self.devnet.query("getTransactionByHash", hash=payment.tx_id)["moneyFlew"]
            holds = await self.owner.execute(sa.text("SELECT hold_id FROM payment_holds WHERE payment_id = :id"), {"id": payment.id})
            for row in holds:
                assert await store.captured(row.hold_id, payment.tx_id, payment.tick, "by hand") is Code.DONE
            if payment.fee:
                assert await store.cost(payment.tx_id, Asset.QUBIC, payment.fee, payment.source, payment.tick, "by hand") is Code.DONE
            assert await self.value("SELECT payment_ended(:id, true, 'by hand')", id=payment.id) == 0
        return len(due)

    async def collected(self) -> None:
        """All deposits are at the paying address."""
        while await self.signer.sweep():
            await self.send()
            self.signer._sweeps_due = 0.0

    def has(self, address: str) -> int:
        """What an address has on chain."""
        return int(self.devnet.live(f"balances/{address}")["balance"]["balance"])


@pytest.fixture
async def world(database: Database, owner: AsyncConnection, process: Devnet, tmp_path: Path) -> AsyncIterator[World]:
    """A signer that leads and has made its first addresses."""
    process.order("/faults/clear")
    await born(owner, "devnet")
    key_file = tmp_path / "signer.key"
    make_key_file(key_file)
    urls = (process.url, process.url + "/b")
    resources = database.resources(
        "qubix_signer", network="devnet", qubic_rpc_urls=urls, qubic_requests_per_s=500, signer_key_file=key_file
    )
    made = World(database, process, owner, resources, key_file, Signer(resources, read_key_file(key_file), holder="test"))
    await made.signer.start()
    await made.signer.keep_addresses()
    yield made
    await resources.close()
