"""An old backup comes back, and the chain has moved on: what it has paid since is not paid again, and the books find out about it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from qubix.backup.restore import Restored, check, restore
from qubix.backup.take import take
from qubix.postgres.embedded import DATABASE, OWNER
from tests.faults.chain.world import World

pytestmark = pytest.mark.postgres


def told(world: World, *words: str, code: int = 0) -> Any:
    """The document of a command of the treasury's machine that ends with `code`."""
    line = [sys.executable, "-m", "qubix.cli.main", "treasury", *words, "--url-file", str(world.folder / "treasurer.url"), "--json"]
    answer = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == code, (words, answer.stdout, answer.stderr)
    return json.loads(answer.stdout)


def disaster(world: World, backup: Path) -> Restored:
    """The database is lost, and the backup restored into a new one."""

    async def remake() -> Restored:
        admin = await asyncpg.connect(world.server.url(OWNER, "postgres"))
        try:
            await admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
            await admin.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await admin.close()
        return await restore(backup, check(backup), world.server.url(), world.folder / "restored")

    for connection in world._connections.values():
        connection.terminate()
    world._connections.clear()
    return asyncio.run(remake())


def test_p12_what_was_paid_after_the_backup_is_not_paid_again_after_the_restore(world: World) -> None:
    payer = world.payer
    world.comes_to_rest()
    world.rows("CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32) PRIMARY KEY)")
    world.rows("INSERT INTO alembic_version VALUES ('0001') ON CONFLICT DO NOTHING")
    free = {row["identity"] for row in world.rows("SELECT identity FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL")}
    world.signer.end()
    before = [world.withdraws(payer, amount) for amount in (5_001, 5_002, 5_003)]
    backup = asyncio.run(take(world.server.url(), world.folder / "blobs", world.folder / "backups")).folder
    world.signer.start()
    world.until(lambda: all(world.state(one) == "CAPTURED" for one in before), "what was asked for before the backup is paid")
    after = world.withdraws(payer, 6_001)
    late = world.user()
    world.gives(late.address, 7_001)
    world.until(lambda: world.wallet(late) == 7_001 and world.is_quiet(), "a payment after the backup, a deposit and its sweep")
    paid = {row["tx_id"] for row in world.signed(*before, after)}
    world.signer.end()
    world.treasurer.end()

    found = disaster(world, backup)
    assert (found.differs, found.problems, found.halted) == ([], [], True)
    assert [world.state(one) for one in before] == ["OPEN"] * 3, "the backup believes them unpaid"
    world.signer.start()
    told(world, "resume", "*", "-y", code=1)
    world.treasurer.start()
    world.until(lambda: _caught_up(world), "the chain is read past the restore")
    world.until(lambda: world.value(OWNER, "SELECT figures ? 'R1' FROM payout_halts WHERE subject = '*'"), "the missing money is noticed")
    assert world.rows("SELECT * FROM payments WHERE kind = 'payout' AND ended_at IS NULL") == [], "signed while payouts are on hold"
    assert told(world, "resume", "*", "-y", code=1)["error"]["code"] == "conflict"

    proved = """SELECT count(*) > 0 AND bool_and(coalesce(v.paid, false)) FROM strangers s LEFT JOIN lost_verdicts v ON v.tx_id = s.tx_id"""
    world.until(lambda: world.value(OWNER, proved), "all that was paid since the backup is proved")
    [left] = told(world, "recover", "-y", code=101)["left"]
    assert [payee["named"] for payee in left["payees"]] == [str(after.hold)]
    assert [world.state(one) for one in before] == ["CAPTURED"] * 3
    assert {row["tx_id"] for row in world.signed(*before)} <= paid
    told(world, "resume", "*", "-y", code=1)
    email = world.value(OWNER, "SELECT email FROM users WHERE id = $1", payer.id)
    assert told(world, "recover", left["tx_id"], "--user", email, "-y")["left"] == []
    world.until(
        lambda: world.value(OWNER, "SELECT figures->'restored'->0 ? 'compared' FROM payout_halts"), "the paying address is compared"
    )
    told(world, "resume", "*", "-y")
    world.until(world.is_quiet, "the figures agree again")
    world.withdraws(payer, 8_001)
    assert world.user().address not in free, "an address that somebody else may have"
    world.comes_to_rest()  # the oracle: each destination got its amount once, ledger = chain


def _caught_up(world: World) -> bool:
    sql = "SELECT (SELECT cursor FROM chain_state) >= (SELECT (figures->'restored'->0->>'until')::bigint FROM payout_halts WHERE subject = '*')"
    return bool(world.value(OWNER, sql))
