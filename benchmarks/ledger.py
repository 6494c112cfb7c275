"""The ledger's money acts beside pgbench's TPC-B, on one embedded server, in one run.

    python -m benchmarks.ledger [--seconds 5] [--rounds 3]

TPC-B is pgbench's built-in transaction (three updates, one select, one insert), prepared, scale 10, with fsync on like ours.
Every case is measured in each round, TPC-B too; the figures are the medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks._report import report
from qubix.escrow.model import Line, Outcome
from qubix.escrow.store import EscrowStore
from qubix.kernel.ids import new_id
from qubix.kernel.lanes import Lanes
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.ledger.store import LedgerStore
from qubix.postgres import schema
from qubix.postgres.embedded import OWNER, EmbeddedServer, binaries
from qubix.postgres.engine import make_engine
from qubix.treasury.store import Deposit, TreasuryStore

USERS = 1000
SCALE = 10
LANES = 1

# What a sign-up, a first deposit and an open escrow leave behind, for many users at once; the owner's hand, before the clock starts.
_USERS = """
INSERT INTO users (id, email) SELECT gen_random_uuid(), 'bench' || n || '@example.org' FROM generate_series(1, :users) n;
SELECT open_wallets(id) FROM users;
INSERT INTO chain_addresses (identity, purpose, user_id, given_at)
SELECT rpad(translate(id::text, '0123456789abcdef-', 'ABCDEFGHIJKLMNOP'), 60, 'Z'), 'user', id, now() FROM users;
SELECT deposit(array_agg(md5(identity)), array_agg(0), array_agg(1::smallint), array_agg(1000000000000), array_agg(identity), array_agg(1::bigint),
               array_agg('bench'::text), array_agg('bench'::text)) FROM chain_addresses;
"""
_ESCROWS = """
WITH fresh AS (
    SELECT gen_random_uuid() AS id, w.id AS payer, w.owner_id, nextval(pg_get_serial_sequence('accounts', 'id')) AS account
    FROM generate_series(1, cast(:each AS integer)) n CROSS JOIN accounts w WHERE w.kind = 'wallet' AND w.asset = 1),
purses AS (INSERT INTO accounts (id, asset, kind, owner_id) SELECT account, 1, 'escrow', owner_id FROM fresh)
INSERT INTO escrows (id, asset, payer_id, account_id) SELECT id, 1, payer, account FROM fresh RETURNING id
"""


class Figures:
    """What each case gave, round by round."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = defaultdict(list)
        self.p99_ms: dict[str, list[float]] = defaultdict(list)

    def add(self, case: str, count: int, elapsed_s: float, latencies_s: Sequence[float]) -> None:
        """One round of one case."""
        self.rates[case].append(count / elapsed_s)
        self.p99_ms[case].append(statistics.quantiles(latencies_s, n=100)[98] * 1000)

    def rate(self, case: str) -> float:
        return statistics.median(self.rates[case])

    def p99(self, case: str) -> float:
        return round(statistics.median(self.p99_ms[case]), 2)


async def closed_loop(clients: int, seconds: float, act: Callable[[int], Awaitable[None]]) -> tuple[int, float, list[float]]:
    """`clients` callers, each with one act under way at a time. Returns: acts, elapsed seconds, latencies in seconds."""
    latencies: list[float] = []
    start = time.perf_counter()
    until = start + seconds

    async def caller(client: int) -> None:
        while (began := time.perf_counter()) < until:
            await act(client)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(caller(client) for client in range(clients)))
    return len(latencies), time.perf_counter() - start, latencies


def tpcb(url: str, clients: int, seconds: float) -> float:
    """TPC-B transactions per second by pgbench."""
    answer = run_pgbench(url, "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))), "-n")
    found = re.search(r"tps = ([0-9.]+)", answer)
    if found is None:
        raise RuntimeError(f"pgbench said: {answer}")
    return float(found[1])


def run_pgbench(url: str, *arguments: str) -> str:
    """Run the wheel's pgbench; the password travels in a file."""
    parts = sa.make_url(url)
    with tempfile.NamedTemporaryFile("w", suffix=".pgpass") as secret:  # mode 0600
        secret.write(f"*:*:*:*:{parts.password}\n")
        secret.flush()
        line = [str(binaries() / "pgbench"), "-h", str(parts.host), "-p", str(parts.port), "-U", str(parts.username), *arguments, "tpcb"]
        environment = {"PATH": os.environ.get("PATH", ""), "PGPASSFILE": secret.name}
        return subprocess.run(line, check=True, capture_output=True, text=True, env=environment).stdout


class Bench:
    """The cases, over one database that is born on the devnet (where deposits exist)."""

    def __init__(self, server: EmbeddedServer, seconds: float) -> None:
        self.server = server
        self.seconds = seconds
        self.figures = Figures()
        self.users: list[UUID] = []
        self.addresses: list[str] = []
        self.web = make_engine(server.url("qubix_web"), pool_size=8)
        self.controller = make_engine(server.url("qubix_controller"), pool_size=8)
        self.treasury = make_engine(server.url("qubix_treasury"), pool_size=2)

    async def prepare(self) -> None:
        """Make the schema, the users and pgbench's own database."""
        owner = make_engine(self.server.url(), pool_size=1)
        async with owner.begin() as connection:
            await schema.create(connection)
            await LedgerStore(connection).found("devnet")
            for statement in filter(str.strip, _USERS.split(";")):
                await connection.execute(sa.text(statement), {"users": USERS} if ":users" in statement else {})
            self.users = list(await connection.scalars(sa.text("SELECT id FROM users")))
            self.addresses = list(await connection.scalars(sa.text("SELECT identity FROM chain_addresses")))
            await connection.execute(sa.text("ANALYZE"))
        async with owner.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(sa.text("CREATE DATABASE tpcb"))
        await owner.dispose()
        await asyncio.to_thread(run_pgbench, self.server.url(OWNER), "-i", "-q", "-s", str(SCALE))

    async def open_escrows(self, count: int) -> list[UUID]:
        """PENDING escrows, `count` of them, spread over all users, and a quiet database after it."""
        owner = make_engine(self.server.url(), pool_size=1)
        async with owner.begin() as connection:
            found = list(await connection.scalars(sa.text(_ESCROWS), {"each": -(-count // USERS)}))
        async with owner.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(sa.text("VACUUM ANALYZE"))
        await owner.dispose()
        await self.settle_down()
        random.shuffle(found)
        return found

    async def single(self, case: str, *, in_scope: bool) -> None:
        """Fund acts, each its own transaction, 8 clients: by one statement, or between BEGIN and COMMIT as a Scope does."""
        waiting = await self.open_escrows(round(self.seconds * 6000 / USERS + 1) * USERS)
        connections = [await self._connect(self.web, autocommit=not in_scope) for _ in range(8)]
        stores = [EscrowStore(connection) for connection in connections]

        async def act(client: int) -> None:
            if in_scope:
                async with connections[client].begin():
                    code = await EscrowStore(connections[client]).fund(waiting.pop(), 1, Qu(1000))
            else:
                code = await stores[client].fund(waiting.pop(), 1, Qu(1000))
            assert code is Code.DONE, code

        self.figures.add(case, *await closed_loop(8, self.seconds, act))
        for connection in connections:
            await connection.close()

    async def batch(self, case: str, payees: Sequence[str], *, lanes_n: int = LANES) -> None:
        """Deposits through the lanes, 32 callers, to addresses drawn from `payees`."""
        connections = [await self._connect(self.treasury, autocommit=True) for _ in range(lanes_n)]
        stores = [TreasuryStore(connection) for connection in connections]
        run = new_id().hex
        count = 0

        async def write(deposits: Sequence[Deposit]) -> Sequence[Code]:
            store = stores.pop()
            try:
                return await store.deposit(deposits)
            finally:
                stores.append(store)

        lanes: Lanes[Deposit, Code] = Lanes(write, lanes=lanes_n)

        async def act(_client: int) -> None:
            nonlocal count
            count += 1
            code = await lanes.submit(Deposit(f"{run}{count}", 0, Asset.QUBIC, Qu(1), random.choice(payees), count, "bench", "bench"))
            assert code is Code.DONE, code

        self.figures.add(case, *await closed_loop(32, self.seconds, act))
        await lanes.close()
        for connection in connections:
            await connection.close()

    async def settlement(self, case: str) -> None:
        """Whole jobs, 8 clients: open and fund (one transaction), settle with two lines, then mature in sets beside them."""
        webs = [await self._connect(self.web, autocommit=False) for _ in range(8)]
        controllers = [await self._connect(self.controller, autocommit=True) for _ in range(8)]
        maturing = await self._connect(self.controller, autocommit=True)
        running = True

        async def act(client: int) -> None:
            payer, one, two = random.sample(self.users, 3)
            job = new_id()
            async with webs[client].begin():
                store = EscrowStore(webs[client])
                assert await store.open(job, payer, Asset.QUBIC) is Code.DONE
                assert await store.fund(job, 1, Qu(1000)) is Code.DONE
            lines = [Line("1", one, Qu(300), 1000), Line("2", two, Qu(500), 2000)]
            code = await EscrowStore(controllers[client]).settle(job, Outcome.COMPLETED, lines, fee_bps=100, window_s=0, decision_s=60)
            assert code is Code.DONE, code

        async def mature() -> int:
            store, matured = EscrowStore(maturing), 0
            while True:
                ended = not running  # read first: what is due after the last job is still paid
                due = await store.due(500)
                matured += sum(code is Code.DONE for code in await store.mature(due)) if due else 0
                if ended and not due:
                    return matured
                await asyncio.sleep(0 if due else 0.01)

        start = time.perf_counter()
        matures = asyncio.create_task(mature())
        jobs, _, latencies = await closed_loop(8, self.seconds, act)
        running = False
        assert await matures == 2 * jobs
        self.figures.add(case, jobs, time.perf_counter() - start, latencies)
        for connection in [*webs, *controllers, maturing]:
            await connection.close()

    async def settle_down(self) -> None:
        """Write out what the case before left dirty, so that no case pays for another's checkpoint."""
        owner = make_engine(self.server.url(), pool_size=1)
        async with owner.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(sa.text("CHECKPOINT"))
        await owner.dispose()

    async def tpcb(self, clients: int) -> None:
        """pgbench's transactions per second."""
        await self.settle_down()
        self.figures.rates[f"tpcb {clients}"].append(await asyncio.to_thread(tpcb, self.server.url(OWNER), clients, self.seconds))

    async def round(self, *, hot_first: bool) -> None:
        """Every case once, each beside the TPC-B that it is compared with."""
        await self.tpcb(8)
        await self.single("single", in_scope=False)
        await self.single("single in a scope", in_scope=True)
        await self.settlement("settlement")
        await self.tpcb(32)
        cases = [("batch uniform", self.addresses), ("batch hot", self.addresses[:1])]
        for case, payees in reversed(cases) if hot_first else cases:
            await self.settle_down()
            await self.batch(case, payees)

    async def audit(self) -> int:
        """How many rules the run broke."""
        async with self.web.connect() as connection:
            return len(await LedgerStore(connection).audit())

    async def close(self) -> None:
        for engine in (self.web, self.controller, self.treasury):
            await engine.dispose()

    async def _connect(self, engine: AsyncEngine, *, autocommit: bool) -> AsyncConnection:
        connection = await engine.connect()
        if autocommit:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        return connection


def print_report(figures: Figures, problems: int) -> None:
    """The JSON lines."""
    eight, thirty_two = figures.rate("tpcb 8"), figures.rate("tpcb 32")
    for case, reach, aim in (("single", 0.7, 1.0), ("single in a scope", None, None)):
        report(
            "ledger",
            case,
            figures.rate(case),
            "acts/s",
            against="pgbench TPC-B, 8 clients",
            against_value=eight,
            reach=reach,
            aim=aim,
            p99_ms=figures.p99(case),
        )
    hot_to_uniform = figures.rate("batch hot") / figures.rate("batch uniform")
    for case in ("batch uniform", "batch hot"):
        report(
            "ledger",
            case,
            figures.rate(case),
            "acts/s",
            against="pgbench TPC-B, 32 clients",
            against_value=thirty_two,
            reach=3.0,
            aim=5.0,
            extra_ok=figures.p99(case) < 10 and hot_to_uniform >= 0.9,
            p99_ms=figures.p99(case),
            hot_to_uniform=round(hot_to_uniform, 3),
        )
    report(
        "ledger",
        "settlement",
        figures.rate("settlement"),
        "jobs/s",
        against="pgbench TPC-B, 8 clients",
        against_value=eight,
        p99_ms=figures.p99("settlement"),
        ledger_problems=problems,
    )


async def run(server: EmbeddedServer, seconds: float, rounds: int) -> None:
    """All rounds, then the report."""
    bench = Bench(server, seconds)
    await bench.prepare()
    for n in range(rounds):
        await bench.round(hot_first=n % 2 == 1)
    problems = await bench.audit()
    await bench.close()
    print_report(bench.figures, problems)
    assert problems == 0


def main() -> None:
    """Start a server of our own, measure, stop it, leave nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per case and round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    data, runtime = Path(tempfile.mkdtemp(prefix="qubix-bench-")), Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    server = EmbeddedServer(data / "server", runtime)
    server.start()
    try:
        uvloop.run(run(server, given.seconds, given.rounds))
    finally:
        server.stop()
        shutil.rmtree(runtime, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
