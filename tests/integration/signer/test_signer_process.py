"""The signer as a process: killed anywhere it signs once, it tells nobody a key, and it refuses what it should not work with."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from qubix.chains.qubic.transaction import Transaction
from qubix.treasury.seeds import make_key_file
from tests.integration.chains.devnet_process import Person
from tests.integration.signer.conftest import START_S, World

PAYEE = Person(720)


@contextmanager
def running(world: World, log: Path, failpoint: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A signer that does not outlive the test."""
    with world.process(log, failpoint) as process:
        try:
            yield process
        finally:
            process.kill()


def told(log: Path) -> str:
    """What it has logged."""
    return log.read_text()


def outside(process: subprocess.Popen[bytes]) -> bytes:
    """What others see of a process."""
    return b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def until(condition: Callable[[], Awaitable[object]], log: Path) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + START_S
    while not await condition():
        assert time.monotonic() < deadline, told(log)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(("failpoint", "stored"), [("signer.before_store", 0), ("signer.stored", 1)])
async def test_p_b13_killed_at_any_place_and_started_again_it_signs_once(world: World, tmp_path: Path, failpoint: str, stored: int) -> None:
    ann = await world.user(1000)
    await world.collected()
    hold = await world.withdraws(ann, 77, PAYEE.identity)
    log = tmp_path / "signer.log"
    with running(world, log, failpoint) as process:
        assert await asyncio.to_thread(process.wait, START_S) == -signal.SIGKILL, told(log)
    assert len(await world.payments("kind = 'payout'")) == stored
    with running(world, log) as process:
        await until(lambda: world.payments("kind = 'payout'"), log)
        await asyncio.sleep(2.5)  # several rounds more
        process.terminate()
        assert await asyncio.to_thread(process.wait, START_S) == 0, told(log)
    [payment] = await world.payments("kind = 'payout'")
    assert Transaction.from_bytes(payment.encoded).verify()
    before = world.has(PAYEE.identity)
    assert await world.send() == 1
    assert world.has(PAYEE.identity) == before + 77
    assert await world.value("SELECT state FROM holds WHERE id = :hold", hold=hold) == "CAPTURED"


async def test_no_seed_and_no_key_is_in_the_database_the_logs_the_environment_or_the_arguments(world: World, tmp_path: Path) -> None:
    log = tmp_path / "signer.log"
    ann = await world.user(500)
    await world.withdraws(ann, 5, PAYEE.identity)
    with running(world, log) as process:
        await until(world.payments, log)
        seen = outside(process)
        process.terminate()
        assert await asyncio.to_thread(process.wait, START_S) == 0
    seen += told(log).encode()
    assert b"leading" in seen
    tables = [row[0] for row in await world.owner.execute(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))]
    assert "signer_keys" in tables
    for table in tables:
        for row in await world.owner.execute(sa.text(f"SELECT t::text FROM {table} t")):
            seen += row[0].encode()
    key = world.key_file.read_text().strip()
    seeds = []
    for row in (await world.owner.execute(sa.text("SELECT identity, sealed FROM signer_keys"))).all():
        nonce, text, tag = row.sealed[1:25], row.sealed[25:-16], row.sealed[-16:]
        seeds.append(world.sealer._cipher(nonce, row.identity).decrypt_and_verify(text, tag))
    assert len(seeds) >= 22
    for secret in (key, *(seed.decode() for seed in seeds), *(seed.hex() for seed in seeds)):
        assert secret.encode() not in seen
    assert bytes.fromhex(key) not in seen


async def test_a_wrong_or_open_key_file_and_a_wrong_network_are_refused_with_what_to_do(world: World, tmp_path: Path) -> None:
    other, opened = tmp_path / "other.key", tmp_path / "open.key"
    make_key_file(other)
    make_key_file(opened)
    opened.chmod(0o644)
    refusals = (
        ({"QUBIX_SIGNER_KEY_FILE": str(other)}, "seed_not_opened", "key file"),
        ({"QUBIX_SIGNER_KEY_FILE": str(opened)}, "key_file_refused", f"chmod 600 {opened}"),
        ({"QUBIX_SIGNER_KEY_FILE": str(tmp_path / "none")}, "key_file_refused", "--make-key"),
        ({"QUBIX_NETWORK": "mainnet"}, "wrong_network", "QUBIX_NETWORK=devnet"),
        ({"QUBIX_QUBIC_RPC_URLS": '["https://rpc.qubic.org"]'}, "wrong_network", "QUBIX_QUBIC_RPC_URLS"),
    )
    for number, (change, code, next_step) in enumerate(refusals):
        log = tmp_path / f"{number}.log"
        process = world.process(log, **change)
        assert await asyncio.to_thread(process.wait, START_S) == 1, told(log)
        said = [json.loads(line) for line in told(log).splitlines()][-1]
        assert (said["code"], next_step in said["next_step"]) == (code, True), said
    assert await world.payments() == []


async def test_a_second_signer_takes_over_and_the_first_ends(world: World, tmp_path: Path) -> None:
    with running(world, tmp_path / "first.log") as first:
        leads = "SELECT epoch FROM leaders WHERE name = 'signer'"
        epoch = await world.value(leads)
        await until(lambda: world.value(f"SELECT epoch > {epoch} FROM leaders WHERE name = 'signer'"), tmp_path / "first.log")
        with running(world, tmp_path / "second.log") as second:
            assert await asyncio.to_thread(first.wait, START_S) == 3
            assert second.poll() is None


async def test_it_survives_the_loss_of_its_connections_and_of_the_network(world: World, tmp_path: Path) -> None:
    log = tmp_path / "signer.log"
    ann = await world.user(1000)
    await world.collected()
    world.devnet.order("/faults", kind="error")
    with running(world, log) as process:
        await until(lambda: world.value("SELECT count(*) > 0 FROM leaders WHERE name = 'signer' AND epoch > 1"), log)
        hold = await world.withdraws(ann, 9, PAYEE.identity)
        kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'qubix_signer'"
        for _ in range(3):
            await world.value(kill)
            await asyncio.sleep(0.5)
        world.devnet.order("/faults/clear")
        await until(lambda: world.payments("kind = 'payout'"), log)
        assert process.poll() is None
    assert await world.value("SELECT hold_id FROM payment_holds") == hold
