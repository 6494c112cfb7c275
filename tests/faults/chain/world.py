"""Chain money without Ray and without the web layer: a real PostgreSQL, a real devnet, the treasury's and the signer's real processes.

The test acts as the web layer (by its role's acts), as wallets outside (by the devnet's faucet and its RPC), and as whoever breaks things.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import psutil

from qubix.kernel import failpoints
from qubix.postgres import schema
from qubix.postgres.embedded import OWNER, EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.treasury import seeds
from tests.faults.chain.oracle import Found, Oracle, Withdrawal
from tests.integration.chains.devnet_process import Devnet, Person

TICK_S: Final = 0.08
AHEAD: Final = 10
"""Whatever wallets outside send is aimed at fewer ticks ahead."""
PATIENCE_S: Final = 300.0
FLOAT: Final = 1_000_000
"""The operator's money for fees."""
WEB: Final = "qubix_web"
SETTINGS: Final = {"fsync": "off", "full_page_writes": "off"}
"""What was committed survives the death of the server's processes, which is all that dies here."""
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass(frozen=True)
class User:
    """Somebody with a wallet and a deposit address."""

    id: UUID
    address: str


class Program:
    """A process that is started again and again with the same settings, and logs into one file."""

    def __init__(self, module: str, environment: dict[str, str], log: Path) -> None:
        self._module = module
        self._environment = environment
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: str = "") -> None:
        """Start it. Args: failpoint, a place that is armed in it."""
        assert self._process is None
        environment = {**os.environ, **self._environment, failpoints.VARIABLE: failpoint}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", self._module], env=environment, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def is_frozen(self) -> bool:
        """Whether it was stopped at a place."""
        return self.exit_code is None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it. Returns: its exit code."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
        code = self._process.wait(30)
        self._process = None
        return code

    def is_killed(self) -> bool:
        """Whether SIGKILL has ended it; it may then be started again."""
        if self.exit_code is None:
            return False
        assert self.end() == -signal.SIGKILL
        return True

    def restart(self, failpoint: str = "") -> None:
        """End it by SIGKILL, and start it again."""
        self.end(signal.SIGKILL)
        self.start(failpoint)

    def close(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self.end(signal.SIGKILL)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class World:
    """All of it. Args: folder; runtime, a short one for the server's socket; tick_s, seconds from tick to tick; settings, of the server."""

    def __init__(
        self, folder: Path, runtime: Path, *, tick_s: float = TICK_S, doors: int = 2, settings: dict[str, str] | None = None, **more: str
    ) -> None:
        self.folder = folder
        self._runner = asyncio.Runner()
        self._connections: dict[str, asyncpg.Connection] = {}
        self._closed = False
        self._payer: User | None = None
        self.withdrawals: list[Withdrawal] = []
        self.server = EmbeddedServer(folder / "database", runtime, options=SETTINGS if settings is None else settings, sync=False)
        self.server.start()
        try:
            self._runner.run(_make_schema(self.server.url(OWNER)))
            assert self.value(OWNER, "SELECT found_ledger('devnet')") >= 0
            self.devnet = Devnet(folder / "devnet", tick_s)
            self.oracle = Oracle(self.server.url(OWNER), self.devnet.url)
            self.treasurer, self.signer = (self._program(name, tick_s, doors, more) for name in ("treasurer", "signer"))
        except BaseException:
            self.server.stop()
            raise

    def _program(self, name: str, tick_s: float, doors: int, more: dict[str, str]) -> Program:
        url_file, key_file = self.folder / f"{name}.url", self.folder / "signer.key"
        self.server.write_url_file({"treasurer": "qubix_treasury", "signer": "qubix_signer"}[name], url_file)
        environment = {
            "QUBIX_DATABASE_URL_FILE": str(url_file),
            "QUBIX_DATA_DIR": str(self.folder),
            "QUBIX_NETWORK": "devnet",
            "QUBIX_QUBIC_RPC_URLS": json.dumps([self.devnet.url, self.devnet.url + "/b"][:doors]),
            "QUBIX_QUBIC_REQUESTS_PER_S": "1000",
            **more,
        }
        if name == "signer":
            seeds.make_key_file(key_file)
            environment["QUBIX_SIGNER_KEY_FILE"] = str(key_file)
        return Program(f"qubix.{name}", environment, self.folder / f"{name}.log")

    def start(self) -> None:
        """Start both processes, and give the house its float."""
        self.signer.start()
        self.treasurer.start()
        self.gives(self.house(), FLOAT)
        self.until(lambda: self.value(OWNER, "SELECT posted FROM accounts WHERE kind = 'house' AND asset = 1") == FLOAT, "the float came")

    def close(self) -> None:
        """End everything, once."""
        if self._closed:
            return
        self._closed = True
        self.treasurer.close()
        self.signer.close()
        self.devnet.stop()
        for connection in self._connections.values():
            connection.terminate()
        self.server.stop()
        self._runner.close()

    # -- the database --

    def value(self, role: str, sql: str, *arguments: object) -> Any:
        """The first column of the first row, as `role`."""
        return self._runner.run(self._on(role, "fetchval", sql, *arguments))

    def rows(self, sql: str, *arguments: object) -> list[Any]:
        """All rows, as the owner."""
        found: list[Any] = self._runner.run(self._on(OWNER, "fetch", sql, *arguments))
        return found

    async def _on(self, role: str, method: str, sql: str, *arguments: object) -> Any:
        known = self._connections.get(role)
        if known is None or known.is_closed():
            known = self._connections[role] = await asyncpg.connect(self.server.url(role))
        return await getattr(known, method)(sql, *arguments)

    def kill_database(self) -> None:
        """SIGKILL to every process of the server, and start it again."""
        assert self.server.process is not None
        first = psutil.Process(self.server.process.pid)
        for process in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.server.process.wait()
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()
        self.server.start()

    # -- as the web layer --

    def user(self) -> User:
        """Somebody new, with a deposit address."""
        user = uuid4()
        self.value(OWNER, "INSERT INTO users (id, email) VALUES ($1, $2)", user, f"{user.hex}@example.org")
        self.value(WEB, "SELECT open_wallets($1)", user)
        return User(user, self.until(lambda: self.value(WEB, "SELECT give_address($1)", user), "an address is free"))

    def withdraws(self, user: User, amount: int, destination: str = "") -> Withdrawal:
        """A withdrawal that is granted, to an identity that nobody paid before."""
        one = Withdrawal(uuid4(), destination or Person(uuid4().int).identity, amount)
        assert self.value(WEB, "SELECT withdraw($1, $2, 1::smallint, $3, $4)", one.hold, user.id, amount, one.destination) == 0
        self.withdrawals.append(one)
        return one

    def wallet(self, user: User) -> int:
        """What is in it, held or not."""
        return int(self.value(OWNER, "SELECT posted FROM accounts WHERE owner_id = $1 AND kind = 'wallet' AND asset = 1", user.id))

    # -- as wallets outside --

    def house(self) -> str:
        """The house's address."""
        sql = "SELECT identity FROM chain_addresses WHERE purpose = 'house'"
        return str(self.until(lambda: self.value(OWNER, sql), "the house has an address"))

    def gives(self, address: str, amount: int) -> str:
        """The devnet's faucet pays. Returns: the transaction."""
        return str(self.devnet.order("/faucet", identity=address, amount=amount)["transactionId"])

    def rich_user(self, amount: int) -> User:
        """Somebody whose deposit is in the wallet."""
        user = self.user()
        self.gives(user.address, amount)
        self.until(lambda: self.wallet(user) == amount, "the deposit is credited")
        return user

    @property
    def payer(self) -> User:
        """Somebody with much money, the same for all tests."""
        if self._payer is None:
            self._payer = self.rich_user(10 * FLOAT)
        return self._payer

    # -- waiting --

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Wait for a true value, and return it. Raises: AssertionError with the ends of the logs."""
        deadline = time.monotonic() + patience_s
        while True:
            found = None
            with contextlib.suppress(*AWAY):
                found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {patience_s:.0f} s: {what}\n{self.story()}")
            time.sleep(0.05)

    def story(self) -> str:
        """What the processes said last, and what is open."""
        found = [f"--- {program.log.name}\n{program.tail()}" for program in (self.treasurer, self.signer)]
        with contextlib.suppress(*AWAY):
            for table in ("payments", "incoming", "payout_halts", "chain_state"):
                shown = "reason, state, tick, amount, tx_id" if table in ("payments", "incoming") else "*"
                where = {"payments": "WHERE ended_at IS NULL", "incoming": "WHERE state <> 'CREDITED'"}.get(table, "")
                found.append(f"--- {table}: {[dict(row) for row in self.rows(f'SELECT {shown} FROM {table} {where}')]}")
        return "\n".join(found)

    def is_quiet(self) -> bool:
        """Whether nothing is under way: no withdrawal open, no payment undecided, nothing to sweep, no halt."""
        return bool(
            self.value(
                OWNER,
                """SELECT NOT EXISTS (SELECT 1 FROM holds WHERE state = 'OPEN') AND NOT EXISTS (SELECT 1 FROM payments WHERE ended_at IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM incoming WHERE state IN ('SEEN','WAITING','DOUBTFUL')) AND NOT EXISTS (SELECT 1 FROM payout_halts)
                   AND NOT EXISTS (SELECT 1 FROM chain_rows r JOIN chain_addresses a ON a.identity = r.address AND a.purpose <> 'hot'
                                   GROUP BY r.address HAVING sum(r.amount) <> 0)""",
            )
        )

    def is_well(self) -> bool:
        """Whether the next test may use it."""
        with contextlib.suppress(*AWAY):
            return self.treasurer.exit_code is None and self.signer.exit_code is None and self.is_quiet()
        return False

    def comes_to_rest(self, patience_s: float = PATIENCE_S) -> Found:
        """Clear the faults, wait until nothing is under way, and let the oracle judge."""
        self.devnet.order("/faults/clear")
        tick = self.devnet.tick + AHEAD
        self.until(lambda: self.value(OWNER, "SELECT cursor FROM chain_state") >= tick, "all that was on its way is scanned", patience_s)
        self.until(self.is_quiet, "everything is settled", patience_s)
        self.until_archived()
        return self.oracle.check(self.withdrawals)

    def signed(self, *withdrawals: Withdrawal) -> list[Any]:
        """The payments that were ever signed for these withdrawals, the oldest first."""
        holds = [one.hold for one in withdrawals]
        sql = """SELECT DISTINCT p.* FROM payments p JOIN payment_holds l ON l.payment_id = p.id WHERE l.hold_id = ANY($1) ORDER BY p.signed_at"""
        return self.rows(sql, holds)

    def state(self, withdrawal: Withdrawal) -> str:
        """OPEN, CAPTURED or VOIDED."""
        return str(self.value(OWNER, "SELECT state FROM holds WHERE id = $1", withdrawal.hold))

    def until_archived(self) -> None:
        """Wait until the archive shows all that happened up to now."""
        tick = self.devnet.tick
        self.until(lambda: self.status()["archived"] >= tick, "the archive has come so far")

    def status(self) -> dict[str, Any]:
        """The devnet, as its admin sees it."""
        found: dict[str, Any] = self.devnet.admin.get("/status").raise_for_status().json()
        return found


async def _make_schema(url: str) -> None:
    engine = make_engine(url, pool_size=1)
    try:
        async with engine.begin() as connection:
            await schema.create(connection)
    finally:
        await engine.dispose()
