"""Acts that race one another, and backends that die in between."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.ids import transfer_id
from qubix.postgres.embedded import OWNER
from tests.conftest import Database
from tests.integration.ledger.people import born, person, posted, problems

FUND = "SELECT fund($1, $2, $3)"
OPEN = "SELECT open_escrow($1, $2, 1::smallint)"
SETTLE = "SELECT settle($1, $2, $3, $4, $5, $6, 100, make_interval(secs => $7), interval '1 day')"


@pytest.fixture
async def pools(database: Database, owner: AsyncConnection) -> AsyncIterator[tuple[asyncpg.Pool, asyncpg.Pool]]:
    """Ten connections of the web role, ten of the controller's; the audit at the end."""
    await born(owner)
    async with (
        asyncpg.create_pool(database.url("qubix_web"), min_size=1, max_size=10) as web,
        asyncpg.create_pool(database.url("qubix_controller"), min_size=1, max_size=10) as controller,
    ):
        yield web, controller
    assert await problems(owner) == []


async def locked(web: asyncpg.Pool, payer: UUID, amount: int) -> UUID:
    escrow = uuid4()
    assert await web.fetchval(OPEN, escrow, payer) == 0
    assert await web.fetchval(FUND, escrow, 1, amount) == 0
    return escrow


async def settle(
    pool: asyncpg.Pool, escrow: UUID, payees: list[UUID], gross: list[int], *, outcome: str = "COMPLETED", window_s: float = 0
) -> int:
    lines = [str(i) for i in range(len(payees))]
    return int(await pool.fetchval(SETTLE, escrow, outcome, lines, payees, gross, [1000] * len(payees), window_s))


async def test_a_wallet_raced_by_many_jobs_is_never_overdrawn(pools: tuple[asyncpg.Pool, asyncpg.Pool], owner: AsyncConnection) -> None:
    web, controller = pools
    payer = await person(owner, money=70)
    jobs = [uuid4() for _ in range(20)]
    for job in jobs:
        assert await web.fetchval(OPEN, job, payer) == 0
    answers = await asyncio.gather(*((web if i % 2 else controller).fetchval(FUND, job, 1, 10) for i, job in enumerate(jobs)))
    assert sorted(answers) == [-3] * 13 + [0] * 7
    assert await posted(owner, payer) == 0


async def test_the_same_step_raced_is_done_once(pools: tuple[asyncpg.Pool, asyncpg.Pool], owner: AsyncConnection) -> None:
    web, controller = pools
    payer, payee, job = await person(owner, money=100), await person(owner), uuid4()
    assert sorted(await asyncio.gather(*(web.fetchval(OPEN, job, payer) for _ in range(10)))) == [0] + [1] * 9
    assert sorted(await asyncio.gather(*(web.fetchval(FUND, job, 1, 60) for _ in range(10)))) == [0] + [1] * 9
    assert sorted(await asyncio.gather(*(settle(controller, job, [payee], [50]) for _ in range(10)))) == [0] + [1] * 9
    earning = transfer_id(job, "line/0")
    paid = await asyncio.gather(*(controller.fetchval("SELECT mature($1)", [earning]) for _ in range(10)))
    assert sorted(code for codes in paid for code in codes) == [0] + [1] * 9
    faucets = await asyncio.gather(*(web.fetchval("SELECT faucet($1, 1::smallint, 5, 'again')", payer) for _ in range(10)))
    assert sorted(faucets) == [0] + [1] * 9
    assert (await posted(owner, payer), await posted(owner, payee)) == (55, 50)


async def test_of_settlements_with_other_content_one_wins(pools: tuple[asyncpg.Pool, asyncpg.Pool], owner: AsyncConnection) -> None:
    web, controller = pools
    payer, payee = await person(owner, money=100), await person(owner)
    job = await locked(web, payer, 100)
    answers = await asyncio.gather(*(settle(controller, job, [payee], [amount]) for amount in range(10)))
    assert sorted(answers) == [-1] * 9 + [0]


async def test_a_dispute_and_a_payout_never_both_win(pools: tuple[asyncpg.Pool, asyncpg.Pool], owner: AsyncConnection) -> None:
    web, controller = pools
    payer, payee = await person(owner, money=4000), await person(owner)
    for _ in range(20):
        job = await locked(web, payer, 100)
        await settle(controller, job, [payee], [80], window_s=0.02)
        earning = transfer_id(job, "line/0")
        await asyncio.sleep(random.random() * 0.03)
        disputed, matured = await asyncio.gather(
            web.fetchval("SELECT dispute($1, $2, 'bad')", job, payer), controller.fetchval("SELECT mature($1)", [earning])
        )
        assert (disputed, matured[0]) in ((0, -4), (0, -8), (-4, 0), (-4, -8))


async def test_jobs_between_the_same_few_wallets_never_deadlock(pools: tuple[asyncpg.Pool, asyncpg.Pool], owner: AsyncConnection) -> None:
    web, controller = pools
    people = [await person(owner, money=10_000) for _ in range(4)]

    async def job() -> None:
        payer, *payees = random.sample(people, 4)
        escrow = await locked(web, payer, 90)
        assert await settle(controller, escrow, payees, [30, 30, 29]) == 0
        ids = [transfer_id(escrow, f"line/{i}") for i in (2, 0, 1)]
        assert await controller.fetchval("SELECT mature($1)", ids) == [0, 0, 0]

    await asyncio.gather(*(job() for _ in range(100)))


async def test_p_a08_backends_killed_at_random_lose_and_make_nothing(
    pools: tuple[asyncpg.Pool, asyncpg.Pool], database: Database, owner: AsyncConnection
) -> None:
    web, controller = pools
    people = [await person(owner, money=10_000) for _ in range(6)]
    # InternalClientError: what asyncpg's pool says when a backend dies while a connection is being reset.
    lost = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError, asyncpg.InternalClientError, OSError)

    async def until_answered(pool: asyncpg.Pool, sql: str, *arguments: object) -> int:
        for _ in range(50):
            with contextlib.suppress(*lost):
                return int(await pool.fetchval(sql, *arguments))
        raise AssertionError("never answered")

    async def job() -> None:
        payer, one, two = random.sample(people, 3)
        escrow, amount = uuid4(), random.randint(2, 50)
        assert await until_answered(web, OPEN, escrow, payer) in (0, 1)
        assert await until_answered(web, FUND, escrow, 1, amount) in (0, 1)
        part = random.randint(0, amount)
        content = ("FAILED", ["0", "1"], [one, two], [part, amount - part], [1, 1], 0.0)
        assert await until_answered(controller, SETTLE, escrow, *content) in (0, 1)
        for line in ("0", "1"):
            code = await until_answered(controller, "SELECT (mature($1))[1]", [transfer_id(escrow, f"line/{line}")])
            assert code in (0, 1, -2)

    async def killer() -> None:
        admin = await asyncpg.connect(database.url(OWNER))
        try:
            for _ in range(60):
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('qubix_web','qubix_controller')"
                    " AND datname = current_database() ORDER BY random() LIMIT 2"
                )
                await asyncio.sleep(0.01)
        finally:
            await admin.close()

    killing = asyncio.create_task(killer())
    for _ in range(5):
        await asyncio.gather(*(job() for _ in range(20)))
    await killing
    assert sum([await posted(owner, who) for who in people]) + (await _fees(owner)) == 60_000


async def _fees(owner: AsyncConnection) -> int:
    found = await owner.exec_driver_sql("SELECT sum(posted)::bigint FROM accounts WHERE kind = 'fee' AND asset = 1")
    return int(found.scalar() or 0)


@pytest.mark.parametrize("first", ["sign", "cancel"])
async def test_of_signing_and_calling_off_a_withdrawal_at_once_the_first_wins(
    database: Database, owner: AsyncConnection, first: str
) -> None:
    await born(owner, "devnet")
    ann, hold, ours, hot = await person(owner), uuid4(), "A" * 60, "H" * 60
    async with contextlib.AsyncExitStack() as closing:
        roles = {}
        for role in (OWNER, "qubix_web", "qubix_signer", "qubix_treasury"):
            roles[role] = await asyncpg.connect(database.url(role))
            closing.push_async_callback(roles[role].close)
        await roles[OWNER].execute(f"INSERT INTO chain_addresses (identity, purpose) VALUES ('{hot}', 'hot')")
        await roles[OWNER].execute(
            "INSERT INTO chain_addresses (identity, purpose, user_id, given_at) VALUES ($1, 'user', $2, now())", ours, ann
        )
        credit = "SELECT deposit('{t}', '{0}', '{1}', '{100}', ARRAY[$1], '{3}', '{proof}', '{PAYER}')"
        assert await roles["qubix_treasury"].fetchval(credit, ours) == [0]
        assert await roles["qubix_web"].fetchval("SELECT withdraw($1, $2, 1::smallint, 60, 'TO')", hold, ann) == 0
        sign = "SELECT sign_payout($1, $2, 'TO', 60, 0, 9, 0, '', 'bytes', 'tx', 0, 0, $3)"
        acts = {
            "sign": ("qubix_signer", sign, uuid4(), hot, [hold]),
            "cancel": ("qubix_web", "SELECT cancel_withdrawal($1, $2)", hold, ann),
        }
        winner, *given = acts.pop(first)
        ((loser, *others),) = acts.values()
        transaction = roles[winner].transaction()
        await transaction.start()
        assert await roles[winner].fetchval(*given) == 0
        waiting = asyncio.create_task(roles[loser].fetchval(*others))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done, "it waits for the hold"
        await transaction.commit()
        assert await waiting == -4
    assert await problems(owner) == []
