"""A backup that is taken from a running database, and what it is when it comes back; a damaged one never does."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from migrations.freeze import dump
from qubix.backup import files, programs
from qubix.backup.model import BLOBS, DUMP, MANIFEST, Damaged, NotEmpty
from qubix.backup.restore import MARK, Restored, audit, check, check_empty, restore
from qubix.backup.take import listed, prune
from qubix.backup.verify import blobs_of, find, verify
from qubix.cli.backup import refuse_half_restored
from qubix.cli.main import app
from qubix.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from qubix.live.feed import Feed, Resync, same_reader
from qubix.live.store import PostgresReader
from qubix.postgres.embedded import binaries
from qubix.postgres.engine import make_engine
from qubix.treasury.seeds import KeyFileRefused
from tests.fakes.voices import stream
from tests.integration.backup.conftest import Empty, Platform

pytestmark = pytest.mark.postgres


async def restored(platform: Platform, folder: Path, url: str, data_dir: Path) -> Restored:
    return await restore(folder, check(folder), url, data_dir)


async def asked(url: str, sql: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


def schema_of(url: str) -> list[str]:
    """Functions, triggers, constraints and every role's grants, in pg_dump's words."""
    return dump(url, rows=False).splitlines()


async def test_p12_what_was_backed_up_comes_back_whole_and_the_ledger_agrees(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    taken = await platform.backup()
    url = await empty()
    found = await restored(platform, taken.folder, url, tmp_path / "new")
    assert (found.differs, found.problems, found.missing, found.halted) == ([], [], [], False)
    assert found.manifest.rows["jobs"] == 1
    assert found.manifest.network == "none"
    assert await asked(url, "SELECT network FROM ledger_network") == "none"
    assert (await asked(url, "SELECT sum(posted) FROM accounts"), await audit(url)) == (0, [])
    for table in ("accounts", "transfers", "escrows", "users", "checkpoints", "blobs"):
        sql = f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t"
        assert await asked(url, sql) == await asked(platform.database.url(), sql), table
    [kept] = blobs_of(taken.folder)
    assert files.measured(tmp_path / "new" / "blobs" / kept[:2] / kept).sha256 == kept


async def test_each_role_may_do_in_the_restored_database_what_it_may_in_the_first(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    taken = await platform.backup()
    url = await empty()
    await restored(platform, taken.folder, url, tmp_path / "new")
    # PostgreSQL prints some expressions with fewer parentheses once they were dumped and read again: read the first ones again, too.
    again = await empty()
    await programs.load(again, taken.folder / DUMP, "")
    assert schema_of(url) == schema_of(again)
    assert len([line for line in schema_of(url) if line.startswith("GRANT ")]) == len(
        [line for line in schema_of(platform.database.url()) if line.startswith("GRANT ")]
    )
    web = platform.database.server.url("qubix_web", url.rsplit("/", 1)[1])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asked(web, "UPDATE accounts SET posted = 0 RETURNING 1")
    assert await asked(web, "SELECT faucet($1, 1::smallint, 5, 'after')", platform.user) == 0


async def test_what_ran_is_lost_without_blame_and_tried_again_from_its_checkpoint(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    taken = await platform.backup()
    url = await empty()
    assert (await restored(platform, taken.folder, url, tmp_path / "new")).lost == 1
    row = "SELECT (state, fault, reason)::text FROM attempts"
    assert await asked(url, row) == "(LOST,platform,storage_failed)"
    assert await asked(url, "SELECT (state, restore_n)::text FROM jobs") == "(PENDING,1)"
    assert await asked(url, "SELECT attempts_faulted FROM providers") == 0
    assert await asked(url, "SELECT count(*) FROM nodes WHERE session IS NOT NULL OR socket_open") == 0
    assert await asked(platform.database.url(), "SELECT state FROM attempts") == "RUNNING"


async def test_nobody_is_logged_in_after_a_restore_and_no_token_lets_in_twice(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    await platform.owner.execute(
        sa.text("""INSERT INTO sessions (id, user_id, token_hash, kind, expires_at)
                   VALUES (gen_random_uuid(), :user, sha256('t'), 'browser', now() + interval '1 day')"""),
        {"user": platform.user},
    )
    await platform.owner.execute(
        sa.text("""INSERT INTO join_tokens (id, provider_id, token_hash, expires_at)
                   SELECT gen_random_uuid(), id, sha256('j'), now() + interval '1 day' FROM providers"""),
    )
    taken = await platform.backup()
    url = await empty()
    await restored(platform, taken.folder, url, tmp_path / "new")
    assert await asked(url, "SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM join_tokens WHERE used_at IS NULL)") == 0


async def test_a_client_that_followed_the_lost_database_takes_new_snapshots(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    taken = await platform.backup()
    assert taken.manifest.position > 0
    url = await empty()
    await restored(platform, taken.folder, url, tmp_path / "new")
    engine = make_engine(url, pool_size=1)
    try:
        async with engine.connect() as connection:
            feed = Feed(lambda: same_reader(PostgresReader(connection)))
            for position in (taken.manifest.position, taken.manifest.position + 500):
                with pytest.raises(Resync):
                    await feed.begin(position)
    finally:
        await engine.dispose()


async def test_a_ledger_with_a_chain_comes_back_with_payouts_on_hold(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    await platform.owner.execute(sa.text("ALTER TABLE ledger_network DISABLE TRIGGER ALL"))
    await platform.owner.execute(sa.text("UPDATE ledger_network SET network = 'devnet'"))
    await platform.owner.execute(sa.text("ALTER TABLE ledger_network ENABLE TRIGGER ALL"))
    taken = await platform.backup()
    url = await empty()
    assert (await restored(platform, taken.folder, url, tmp_path / "new")).halted
    assert await asked(url, "SELECT (subject, rule, needs_person)::text FROM payout_halts") == "(*,restored,t)"


async def test_only_new_bytes_are_copied_and_old_backups_go_with_theirs(platform: Platform) -> None:
    first = await platform.backup()
    (attempt,) = await platform.node.desired()
    await platform.node.checkpoint(attempt, 2, ran_ms=2000)
    second = await platform.backup()
    assert (first.copied, second.copied, second.manifest.blobs) == (1, 1, 2)
    assert prune(platform.to, 1) == [first.folder]
    assert listed(platform.to) == [second.folder]
    assert verify(second.folder).blobs == 2
    await platform.owner.execute(sa.text("DELETE FROM checkpoints WHERE n = 1"))
    third = await platform.backup()
    prune(platform.to, 1)
    assert verify(find(platform.to)) == third.manifest
    assert len(list((platform.to / BLOBS).glob("??/*"))) == 1


async def test_a_backup_is_readable_by_its_owner_alone_and_never_overwritten(platform: Platform) -> None:
    taken = await platform.backup()
    for path in [platform.to, *platform.to.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    (platform.to / "999.part").mkdir()
    content = files.measured(taken.folder / MANIFEST)
    again = await platform.backup()
    assert listed(platform.to) == [taken.folder, again.folder]
    assert files.measured(taken.folder / MANIFEST) == content
    assert not list(platform.to.glob("*.part")), "what a killed backup left stays"
    with files.alone(platform.to), pytest.raises(Conflict, match="another backup"):
        await platform.backup()


async def test_bytes_whose_file_is_gone_or_rotten_are_told_and_the_rest_is_kept(platform: Platform) -> None:
    [sha256] = [path.name for path in platform.blobs.glob("??/*")]
    path = platform.blobs / sha256[:2] / sha256
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    taken = await platform.backup()
    assert taken.manifest.missing == (sha256,)
    assert verify(taken.folder).blobs == 0


async def test_bytes_put_while_the_database_is_dumped_are_in_the_backup_or_not_referred_to(platform: Platform) -> None:
    (attempt,) = await platform.node.desired()
    done = asyncio.Event()

    async def keep_putting() -> int:
        n = 1
        while not done.is_set():
            n += 1
            await platform.node.checkpoint(attempt, n, ran_ms=n)
        return n

    putting = asyncio.create_task(keep_putting())
    try:
        taken = await platform.backup()
    finally:
        done.set()
    last = await putting
    manifest = verify(taken.folder)
    assert manifest.missing == ()
    assert 1 <= manifest.blobs <= last
    assert last > 2, "nothing was written while the backup was taken: it was locked out"


@pytest.mark.parametrize("harm", ["flip", "cut", "drop", "list", "blob", "manifest", "half"])
async def test_a_damaged_backup_is_refused_before_anything_is_restored(platform: Platform, empty: Empty, harm: str, tmp_path: Path) -> None:
    folder = (await platform.backup()).folder
    target = {"list": "blobs.txt", "manifest": MANIFEST, "half": MANIFEST}.get(harm, DUMP)
    path = folder / target if harm != "blob" else next((platform.to / BLOBS).glob("??/*"))
    content = bytearray(path.read_bytes())
    if harm in ("drop", "half"):
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    with pytest.raises(Damaged):
        check(find(folder))
    if harm in ("flip", "cut"):  # even past the checksums nothing half is committed
        url = await empty()
        with pytest.raises(Unavailable):
            await programs.load(url, path, "", silent_max_s=10)
        assert await asked(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


async def test_nothing_is_restored_over_something(platform: Platform, empty: Empty, tmp_path: Path) -> None:
    folder = (await platform.backup()).folder
    url = await empty()
    await asked(url, "CREATE TABLE mine (n int)")
    with pytest.raises(NotEmpty, match="mine"):
        await restored(platform, folder, url, tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(NotEmpty, match="file"):
        check_empty(tmp_path / "full")
    check_empty(tmp_path / "none")
    with pytest.raises(NotFound):
        find(tmp_path / "full")


async def test_a_key_file_that_others_may_read_is_refused_before_anything_is_written(platform: Platform, tmp_path: Path) -> None:
    taken = await platform.backup()
    key_file, target = tmp_path / "signer.key", tmp_path / "new"
    key_file.write_text("0" * 64)
    key_file.chmod(0o644)
    arguments = ["restore", str(taken.folder), "--data-dir", str(target), "--signer-key", str(key_file), "-y"]
    refused = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert isinstance(refused.exception, KeyFileRefused)
    assert not target.exists()


async def test_what_settles_a_restored_database_is_committed_with_it_or_not_at_all(platform: Platform, empty: Empty) -> None:
    folder = (await platform.backup()).folder
    url = await empty()
    with pytest.raises(Unavailable, match="nowhere"):
        await programs.load(url, folder / DUMP, "SELECT * FROM nowhere;")
    assert await asked(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


async def test_a_pg_restore_that_goes_round_in_a_damaged_dump_is_given_up(
    empty: Empty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = await empty()
    for name, does in (("pg_restore", "echo 'CREATE TABLE half (n int);'; exec sleep 600"), ("psql", f'exec {binaries()}/psql "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("QUBIX_PG_BIN", str(tmp_path))
    with pytest.raises(Unavailable, match="said nothing for 1 s"):
        await programs.load(url, tmp_path / DUMP, "", silent_max_s=1)
    assert await asked(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


async def test_an_older_pg_dump_than_the_server_is_refused_and_the_password_is_in_no_command_line(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match="of PostgreSQL 18, and the server of 19"):
        programs.check_version(190_001)
    fake = tmp_path / "pg_dump"
    fake.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo "pg_dump (PostgreSQL) 18.0"; exit; fi\necho "$@" >&2\nenv >&2\nexit 1\n')
    fake.chmod(0o700)
    monkeypatch.setenv("QUBIX_PG_BIN", str(tmp_path))
    password = platform.database.url().split(":")[2].split("@")[0]
    with pytest.raises(Unavailable) as refused:
        await platform.backup()
    assert platform.database.name in refused.value.message
    assert password not in refused.value.message
    assert not list(platform.to.glob("*.part"))


def test_nothing_starts_on_a_half_restored_folder(tmp_path: Path) -> None:
    refuse_half_restored(tmp_path)
    (tmp_path / MARK).touch()
    with pytest.raises(Conflict, match="half"):
        refuse_half_restored(tmp_path)


async def test_a_later_releases_backup_is_refused(platform: Platform) -> None:
    await platform.owner.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    folder = (await platform.backup()).folder
    with pytest.raises(Invalid, match="9999"):
        check(folder)


async def test_a_file_is_copied_under_its_hash_only_when_it_has_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "pool" / "target"
    content = b"".join([part async for part in stream(b"bytes")])
    source.write_bytes(content)
    assert not files.copy(source, target, "0" * 64)
    assert os.listdir(tmp_path / "pool") == []
    assert files.copy(source, target, files.measured(source).sha256)
    assert not files.copy(tmp_path / "none", target, "0" * 64)
    assert target.read_bytes() == content


async def test_a_partition_that_must_wait_for_a_backup_gives_up_before_heartbeats_wait_behind_it(platform: Platform) -> None:
    reading = await asyncpg.connect(platform.database.url())
    try:
        async with reading.transaction():
            await reading.execute("LOCK TABLE device_metrics IN ACCESS SHARE MODE")  # as pg_dump does
            with pytest.raises(asyncpg.LockNotAvailableError):
                await asked(platform.database.url("qubix_controller"), "SELECT make_metric_partitions(60)")
        assert await asked(platform.database.url("qubix_controller"), "SELECT make_metric_partitions(60)") > 0
    finally:
        await reading.close()
