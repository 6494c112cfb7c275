"""The treasury's scan of the chain against its mark, and withdrawals through a network that errs.

    python -m benchmarks.treasury [--ticks 10000] [--transactions 100000] [--ours 1000] [--withdrawals 1000] [--case scan|withdrawals]

Everything is real: the devnet's HTTP server, the treasury's and the signer's process, PostgreSQL with its durability on. What the scan reads is
made beforehand, by the devnet's own rules without its clock: signed transactions, of which some pay to our addresses, directly or in a send-many.
Its clock runs from when the treasury process leads until its cursor has passed the last tick; the mark is absolute. `one endpoint` reads every
tick once, `two endpoints` twice, as decision 0005 asks where two are configured.

Of the broadcasts 5 % are accepted and not answered (they hang, are cut off, or end in an error) and 2 % are dropped, at least one of each; a payment
carries up to 25 withdrawals. A withdrawal counts as paid when its destination got its amount once, by the devnet's word.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import psutil

from benchmarks._report import report
from qubix.chains.qubic import identity, keys, qutil
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.ledger import ARCHIVE_LAG
from qubix.chains.qubic.devnet.network import Network
from qubix.chains.qubic.transaction import Transaction
from qubix.postgres import schema
from qubix.postgres.embedded import OWNER, EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.treasury.sending import CONFIRMATIONS, LEAD
from tests.faults.chain.world import World

SCAN_PER_S_MIN: Final = 2_000
PAYERS: Final = 100
USERS: Final = 200
AHEAD: Final = 3
"""Ticks between a transaction's making and its own."""
PLACES_OURS: Final = 5
"""Of a send-many's 25."""
PATIENCE_S: Final = 900.0
DOORS: Final = ("", "/b")
WITHDRAWERS: Final = 20
MONEY_EACH: Final = 1_000_000
AMBIGUOUS, DROPPED = 0.05, 0.02
TICKS_EACH: Final = LEAD + CONFIRMATIONS + ARCHIVE_LAG
"""From the signing of a payment until it is final."""


# -- what the scan reads --


@dataclass(frozen=True)
class Payer:
    """Somebody outside."""

    subseed: bytes
    key: bytes


def payer(number: int) -> Payer:
    """The same number is the same one."""
    subseed = keys.subseed_from_seed("".join(chr(ord("a") + int(digit)) for digit in f"{number:055d}"))
    return Payer(subseed, keys.public_key_from_subseed(subseed))


@dataclass(frozen=True)
class Plan:
    """Who pays whom, per tick: the payer's number, the payees with their amounts; several payees make a send-many."""

    first: int
    ticks: tuple[tuple[tuple[int, tuple[tuple[bytes, int], ...]], ...], ...]


def plan(first: int, ticks: int, transactions: int, ours: int, addresses: Sequence[bytes], strangers: Sequence[bytes]) -> Plan:
    """Spread the transactions evenly, ours at random places, one in ten of them a send-many."""
    chance = random.Random("scan")
    mine = dict.fromkeys(chance.sample(range(transactions), ours))
    listed: list[list[Any]] = [[] for _ in range(ticks)]
    for n in range(transactions):
        if n not in mine:
            payees: list[bytes] = [chance.choice(strangers)]
        elif chance.random() < 0.1:
            payees = [*chance.sample(addresses, PLACES_OURS), *chance.sample(strangers, qutil.PAYMENTS_MAX - PLACES_OURS)]
            chance.shuffle(payees)
        else:
            payees = [chance.choice(addresses)]
        listed[n * ticks // transactions].append((n % PAYERS, tuple((payee, chance.randint(1, 1000)) for payee in payees)))
    return Plan(first, tuple(tuple(tick) for tick in listed))


def signed(part: tuple[int, Sequence[Sequence[Any]], int]) -> list[list[bytes]]:
    """The bytes of some ticks' transactions, for a process of its own."""
    first, ticks, fee = part
    people = {number: payer(number) for number in range(PAYERS)}
    found = []
    for offset, listed in enumerate(ticks):
        made = []
        for number, payees in listed:
            one = people[number]
            if len(payees) > 1:
                unsigned = qutil.send_many(one.key, payees, tick=first + offset, fee=fee)
            else:
                [(payee, amount)] = payees
                unsigned = Transaction(one.key, payee, amount, first + offset)
            made.append(unsigned.signed_by(one.subseed).to_bytes())
        found.append(made)
    return found


def write_chain(folder: Path, ticks: int, transactions: int, ours: int, addresses: Sequence[bytes]) -> tuple[int, int, Counter[str]]:
    """Make the network's past. Returns: its first tick that matters, its last one, and what each address of ours gets."""
    network = Network.open(folder)
    try:
        people = [payer(number) for number in range(PAYERS)]
        for one in people:
            network.fund(one.key, 10**9)
        network.step(AHEAD)
        first = network.ledger.tick + AHEAD
        planned = plan(first, ticks, transactions, ours, addresses, [one.key for one in people])
        fee = network.send_many_fee()
        part = 250
        parts = [(first + start, planned.ticks[start : start + part], fee) for start in range(0, ticks, part)]
        with ProcessPoolExecutor() as pool:
            for made in pool.map(signed, parts):
                for encoded in made:
                    for transaction in encoded:
                        network.ledger.admit(wire.read(transaction))
                    network.step()
        network.step(10)
        due: Counter[str] = Counter()
        mine = set(addresses)
        for tick in planned.ticks:
            for _, payees in tick:
                due.update({identity.encode(payee): amount for payee, amount in payees if payee in mine})
        return first, first + ticks - 1, due
    finally:
        network.close()


# -- the processes --


@contextmanager
def devnet(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The devnet's server on a folder, its clock standing still."""
    command = [sys.executable, "-m", "qubix.chains.qubic.devnet", "--data-dir", str(folder), "--port", "0", "--tick-s", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def database() -> Iterator[EmbeddedServer]:
    """A server of its own with the schema, born on network devnet."""
    folder, runtime = Path(tempfile.mkdtemp(prefix="qubix-bench-")), Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    server = EmbeddedServer(folder, runtime)
    server.start()
    try:
        asyncio.run(_make_schema(server.url()))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(runtime, ignore_errors=True)


async def _make_schema(url: str) -> None:
    engine = make_engine(url, pool_size=1)
    async with engine.begin() as connection:
        await schema.create(connection)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    await connection.fetchval("SELECT found_ledger('devnet')")
    await connection.close()


# -- scan --


@dataclass(frozen=True)
class Scanned:
    """One scan. Args: cpu_s, of each process; rss_mb, of the treasury process, sample by sample."""

    seconds: float
    cpu_s: dict[str, float]
    rss_mb: list[float]


async def people(server: EmbeddedServer, addresses: Sequence[bytes], first: int) -> None:
    """Users with these addresses, and a cursor just before the first tick: the owner's hand."""
    connection = await asyncpg.connect(server.url())
    ids: list[UUID] = [uuid4() for _ in addresses]
    await connection.execute("INSERT INTO users (id, email) SELECT u, u || '@example.org' FROM unnest($1::uuid[]) u", ids)
    await connection.execute("SELECT open_wallets(id) FROM users")
    await connection.execute(
        "INSERT INTO chain_addresses (identity, purpose, user_id, given_at) SELECT a, 'user', u, now() FROM unnest($1::text[], $2::uuid[]) AS n (a, u)",
        [identity.encode(address) for address in addresses],
        ids,
    )
    await connection.execute("INSERT INTO chain_state (cursor, peeked) VALUES ($1, $1)", first - 1)
    await connection.close()


@contextmanager
def treasurer(server: EmbeddedServer, folder: Path, urls: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The treasury process; what it said last is shown when something goes wrong."""
    url_file, log = folder / "treasury.url", folder / "treasurer.log"
    server.write_url_file("qubix_treasury", url_file)
    environment = {
        **os.environ,
        "QUBIX_DATABASE_URL_FILE": str(url_file),
        "QUBIX_NETWORK": "devnet",
        "QUBIX_QUBIC_RPC_URLS": json.dumps(urls),
        "QUBIX_QUBIC_REQUESTS_PER_S": "1000000",
    }
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "qubix.treasurer"], env=environment, stdout=out, stderr=out)
    try:
        yield process
    except BaseException:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        process.kill()
        process.wait()


async def scan(server: EmbeddedServer, process: subprocess.Popen[bytes], network: psutil.Process, first: int, last: int) -> Scanned:
    """Wait until the treasury's cursor has passed the last tick."""
    connection = await asyncpg.connect(server.url())
    assert server.process is not None
    rss: list[float] = []
    try:
        watched = {"treasury": psutil.Process(process.pid), "devnet": network, "postgres": psutil.Process(server.process.pid)}
        while not await connection.fetchval("SELECT true FROM leaders WHERE name = 'treasury'"):
            assert process.poll() is None, "the treasury process has ended"
            await asyncio.sleep(0.02)
        began, before = time.perf_counter(), _cpu(watched)
        while (cursor := await connection.fetchval("SELECT cursor FROM chain_state")) < last:
            assert process.poll() is None, "the treasury process has ended"
            assert time.perf_counter() - began < PATIENCE_S, f"the cursor stands at {cursor}"
            if cursor >= first:
                rss.append(watched["treasury"].memory_info().rss / 2**20)
            await asyncio.sleep(0.1)
        seconds, after = time.perf_counter() - began, _cpu(watched)
        return Scanned(seconds, {name: round(after[name] - before[name], 1) for name in watched}, rss)
    finally:
        await connection.close()


def _cpu(watched: dict[str, psutil.Process]) -> dict[str, float]:
    found = {}
    for name, process in watched.items():
        total = 0.0
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            total += times.user + times.system
        found[name] = total + process.cpu_times().children_user + process.cpu_times().children_system
    return found


async def credited(server: EmbeddedServer) -> tuple[Counter[str], bool]:
    """What the ledger has of each address, and whether its audit is empty and its chain account agrees."""
    connection = await asyncpg.connect(server.url())
    rows = await connection.fetch(
        "SELECT a.identity, w.posted FROM chain_addresses a JOIN accounts w ON w.owner_id = a.user_id AND w.kind = 'wallet' AND w.asset = 1"
    )
    sound = not await connection.fetch("SELECT 1 FROM audit() WHERE n > 0")
    sound &= await connection.fetchval(
        "SELECT (SELECT sum(amount) FROM chain_rows) = -posted FROM accounts WHERE kind = 'chain' AND asset = 1"
    )
    await connection.close()
    return Counter({row["identity"]: row["posted"] for row in rows if row["posted"]}), sound


def measure_scan(ticks: int, transactions: int, ours: int) -> None:
    """Print the case, for one endpoint and for two."""
    addresses = [keys.public_key_from_subseed(random.Random(f"user {n}").randbytes(32)) for n in range(USERS)]
    folder = Path(tempfile.mkdtemp(prefix="qubix-bench-"))
    try:
        began = time.perf_counter()
        first, last, due = write_chain(folder / "devnet", ticks, transactions, ours, addresses)
        made_s = time.perf_counter() - began
        for doors, case in ((DOORS[:1], "one endpoint"), (DOORS, "two endpoints")):
            with devnet(folder / "devnet") as (url, network), database() as server:
                asyncio.run(people(server, addresses, first))
                with treasurer(server, folder, [url + door for door in doors]) as process:
                    found = asyncio.run(scan(server, process, network, first, last))
                got, sound = asyncio.run(credited(server))
            assert got == due, f"{len(due)} addresses were paid, the ledger differs at {sum(got[a] != due[a] for a in due | got)}"
            assert sound
            rate = transactions / found.seconds
            quarter = max(1, len(found.rss_mb) // 4)
            report(
                "treasury",
                f"scan, {case}",
                rate,
                "transactions/s",
                against="the mark",
                against_value=SCAN_PER_S_MIN,
                reach=1,
                seconds=round(found.seconds, 1),
                ticks=ticks,
                transactions=transactions,
                ours=ours,
                cpu_s=found.cpu_s,
                rss_growth_mb=round(statistics.mean(found.rss_mb[-quarter:]) - statistics.mean(found.rss_mb[:quarter]), 1),
                rss_mb=round(max(found.rss_mb), 1),
                made_in_s=round(made_s, 1),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- withdrawals --


def measure_withdrawals(count: int, tick_s: float) -> None:
    """Print the case: all of them granted at once, while the network errs; judged by the oracle of the fault tests."""
    folder, runtime = Path(tempfile.mkdtemp(prefix="qubix-bench-")), Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    chance = random.Random("withdrawals")
    world = World(folder, runtime, tick_s=tick_s, settings={})
    try:
        world.start()
        users = [world.user() for _ in range(WITHDRAWERS)]
        for user in users:
            world.gives(user.address, MONEY_EACH)
        world.comes_to_rest(PATIENCE_S)
        world.devnet.order("/faults/clear", seed="withdrawals")
        for answer in ("hang", "cut", "error"):
            world.devnet.order("/faults", kind="ambiguous", answer=answer, next=1, hang_s=6)
            world.devnet.order("/faults", kind="ambiguous", answer=answer, p=AMBIGUOUS / 3, hang_s=6)
        world.devnet.order("/faults", kind="drop", next=1)
        world.devnet.order("/faults", kind="drop", p=DROPPED)
        began = time.perf_counter()
        for _ in range(count):
            world.withdraws(chance.choice(users), chance.randint(1, 1000))
        open_holds = "SELECT count(*) FROM holds WHERE state = 'OPEN'"
        world.until(lambda: world.value(OWNER, open_holds) == 0, "all withdrawals are paid", PATIENCE_S)
        seconds = time.perf_counter() - began
        found = world.comes_to_rest(PATIENCE_S)
        log = world.treasurer.log.read_text()
        broadcasts = world.value(OWNER, "SELECT sum(broadcasts) FROM payments WHERE kind = 'payout'")
        payments = world.value(OWNER, "SELECT count(*) FROM payments WHERE kind = 'payout'")
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(runtime, ignore_errors=True)
    report(
        "treasury",
        "withdrawals",
        count / seconds,
        "payouts/s",
        against="one send-many of 25 at a time, by the protocol's ticks alone",
        against_value=qutil.PAYMENTS_MAX / (TICKS_EACH * tick_s),
        paid_exactly_once=found.captured,
        stuck=found.open,
        unknown=found.unknown,
        ledger_equals_chain=True,
        payments=payments,
        dead_and_signed_anew=found.dead,
        broadcasts=broadcasts,
        left_ambiguous=log.count('"state": "ambiguous"'),
        seconds=round(seconds, 1),
        tick_s=tick_s,
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=10_000)
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--ours", type=int, default=1_000)
    parser.add_argument("--withdrawals", type=int, default=1_000)
    parser.add_argument("--tick-s", type=float, default=0.06)
    parser.add_argument("--case", choices=("scan", "withdrawals"))
    options = parser.parse_args()
    cases: dict[str, Callable[[], None]] = {
        "scan": lambda: measure_scan(options.ticks, options.transactions, options.ours),
        "withdrawals": lambda: measure_withdrawals(options.withdrawals, options.tick_s),
    }
    for name, measure in cases.items():
        if options.case in (None, name):
            measure()


if __name__ == "__main__":
    main()
