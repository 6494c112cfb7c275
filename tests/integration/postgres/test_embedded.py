"""The embedded server: reachable by nobody else, restartable, and it changes no folder's mode."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from qubix.kernel.errors import Invalid, Unavailable
from qubix.postgres import embedded
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.engine import read_url_file

pytestmark = pytest.mark.postgres


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qt-", dir="/tmp") as folder:
        yield Path(folder)


async def rows(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row["n"] for row in await connection.fetch("SELECT n FROM kept ORDER BY n")]
    finally:
        await connection.close()


def query(server: EmbeddedServer, sql: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.url())
        await connection.execute(sql)
        await connection.close()

    asyncio.run(run())


def test_what_was_committed_is_there_after_a_kill_and_a_restart(tmp_path: Path, runtime: Path) -> None:
    server = EmbeddedServer(tmp_path / "q", runtime)
    server.start()
    query(server, "CREATE TABLE kept(n int); INSERT INTO kept VALUES (1), (2)")
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    again = EmbeddedServer(tmp_path / "q", runtime)
    again.start()
    try:
        assert asyncio.run(rows(again.url())) == [1, 2]
    finally:
        again.stop()


@pytest.fixture
def orphaned(tmp_path: Path, runtime: Path) -> Iterator[int]:
    """A session that outlives its server, which was killed; it ends as soon as it is let go on."""
    server = EmbeddedServer(tmp_path / "q", runtime)
    server.start()
    session, read = asyncio.Runner(), asyncpg.connect(server.url())
    connection = session.run(read)
    try:
        pid = int(session.run(connection.fetchval("SELECT pg_backend_pid()")))
        os.kill(pid, signal.SIGSTOP)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        yield pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        connection.terminate()
    finally:
        session.close()


def test_a_start_waits_for_the_last_sessions_of_a_server_that_was_killed(orphaned: int, tmp_path: Path, runtime: Path) -> None:
    log = tmp_path / "q" / "log" / "postgres.log"

    def let_go() -> None:
        deadline = time.monotonic() + 20
        while "still in use" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(orphaned, signal.SIGCONT)

    threading.Thread(target=let_go, daemon=True).start()
    again = EmbeddedServer(tmp_path / "q", runtime)
    again.start()
    again.stop()
    assert "still in use" in log.read_text()


def test_a_session_that_does_not_end_is_named_as_what_keeps_the_server_from_starting(
    orphaned: int, tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orphaned
    monkeypatch.setattr(embedded, "ORPHANS_TIMEOUT_S", 0.3)
    with pytest.raises(Unavailable, match="processes of an earlier server still use"):
        EmbeddedServer(tmp_path / "q", runtime).start()


def test_a_server_that_its_supervisor_lost_is_ended_before_another_starts_on_its_folder(tmp_path: Path, runtime: Path) -> None:
    lost = EmbeddedServer(tmp_path / "q", runtime)
    lost.start()
    query(lost, "CREATE TABLE kept(n int); INSERT INTO kept VALUES (1)")
    again = EmbeddedServer(tmp_path / "q", runtime)
    try:
        again.start()
        assert lost.process is not None
        assert lost.process.wait(1) == 0
        assert asyncio.run(rows(again.url())) == [1]
    finally:
        again.stop()
        lost.stop()


def test_a_pid_file_that_names_a_process_of_somebody_else_keeps_no_server_from_starting(tmp_path: Path, runtime: Path) -> None:
    server = EmbeddedServer(tmp_path / "q", runtime)
    server.start()
    lines = (tmp_path / "q" / "pg" / "postmaster.pid").read_text().splitlines()
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as another:
        lines[0] = str(another.pid)
        (tmp_path / "q" / "pg" / "postmaster.pid").write_text("\n".join(lines) + "\n")
        again = EmbeddedServer(tmp_path / "q", runtime)
        again.start()
        again.stop()
        assert another.poll() is None
        another.kill()


def test_it_runs_below_a_private_folder_and_leaves_every_mode_as_it_was(tmp_path: Path, runtime: Path) -> None:
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in (private, *private.parents)]
    server = EmbeddedServer(private / "q", runtime)
    server.start()
    server.stop()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (private, *private.parents)] == before
    for secret in (private / "q" / "secrets").iterdir():
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


async def test_no_role_gets_in_without_its_password(postgres: EmbeddedServer) -> None:
    wrong = postgres.url("qubix_web").replace(":", ":x", 2).replace("postgresql:x//", "postgresql://")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


def test_a_url_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("postgresql://x")
    path.chmod(0o644)
    with pytest.raises(Invalid, match="others may read it"):
        read_url_file(path)
