"""PostgreSQL's own programs against a database: pg_dump to read it, pg_restore and psql to fill an empty one.

The password goes by a file of mode 0600, never by a command line or an environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa

from qubix.kernel.errors import Invalid, Unavailable
from qubix.postgres.embedded import binaries

LOCK_WAIT_MS: Final = 10_000
"""How long a dump waits for a table that a migration is changing, before it gives up; nobody else waits behind it longer."""
CHUNK_BYTES: Final = 1 << 20
STOP_S: Final = 30.0
SILENT_MAX_S: Final = 60.0
"""pg_restore reads a file, and waits for nothing else: one that says nothing for so long goes round in a damaged one (tried: a single bit)."""


def check_version(server_version_num: int) -> None:
    """See that pg_dump is not older than the server, whose dump would lack what it does not know.

    Raises: Invalid, with what to install; Unavailable without any pg_dump.
    """
    program = binaries() / "pg_dump"
    try:
        said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}", next_step="point QUBIX_PG_BIN at a bin folder of PostgreSQL") from error
    found = re.search(r"\d+", said)
    ours, theirs = int(found[0]) if found else 0, server_version_num // 10_000
    if ours < theirs:
        raise Invalid(
            f"this pg_dump is of PostgreSQL {ours}, and the server of {theirs}: an older pg_dump cannot read it",
            next_step=f"install PostgreSQL {theirs}'s client programs, and point QUBIX_PG_BIN at their bin folder",
        )


async def dump(url: str, target: Path, *, snapshot: str) -> None:
    """Write the whole database, as a snapshot shows it, to a new file of mode 0600 in pg_dump's custom format.

    Readers and writers go on: pg_dump takes the weakest lock there is on each table. Raises: Unavailable with what pg_dump said.
    """
    with _reached(url) as (where, environment), tempfile.TemporaryFile() as complaints:
        line = ["pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT_MS}", f"--dbname={where}"]
        with os.fdopen(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
            process = await _start(line, environment, stdout=file, stderr=complaints)
            try:
                await process.wait()
            finally:
                await _end(process)
            os.fsync(file.fileno())
        if process.returncode:
            raise Unavailable(
                f"pg_dump ended with {process.returncode}: {_tail(complaints)}", next_step="see what it says; is the disk full?"
            )


async def load(url: str, source: Path, settle: str, *, silent_max_s: float = SILENT_MAX_S) -> None:
    """Fill an empty database from a dump, and run the statements `settle` behind it, all in one transaction: all of it, or nothing.

    Raises: Unavailable with what pg_restore or psql said; nothing was changed then.
    """
    with _reached(url) as (where, environment), tempfile.TemporaryFile() as of_restore, tempfile.TemporaryFile() as of_psql:
        line = ["pg_restore", "--no-owner", "--file=-", str(source)]
        reading = await _start(line, environment, stdout=subprocess.PIPE, stderr=of_restore)
        line = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={where}", "--file=-"]
        filling = await _start(line, environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=of_psql)
        try:
            with contextlib.suppress(ConnectionError):  # psql has ended early: its exit code says so below
                await _pour(reading, filling, silent_max_s)
                if await reading.wait():
                    # To psql an early end looks like a complete one: it is ended before it can commit the half.
                    said = _tail(of_restore)
                    raise Unavailable(f"pg_restore ended with {reading.returncode}: {said}", next_step="qubix restore --check verifies it")
                await _say(filling, f"{settle}\nCOMMIT;\n")
            if filling.stdin is not None:
                filling.stdin.close()
            if await filling.wait():
                raise Unavailable(
                    f"psql ended with {filling.returncode}: {_tail(of_psql)}", next_step="nothing was restored; see what it says"
                )
        finally:
            await _end(reading)
            await _end(filling)


async def _pour(reading: asyncio.subprocess.Process, filling: asyncio.subprocess.Process, silent_max_s: float) -> None:
    """All that one process says, to the other. Raises: ConnectionError when that one has ended; Unavailable when the first falls silent."""
    assert reading.stdout is not None  # noqa: S101  (typing: it is a pipe)
    await _say(filling, "BEGIN;\n")
    try:
        while chunk := await asyncio.wait_for(reading.stdout.read(CHUNK_BYTES), silent_max_s):
            await _say(filling, chunk)
    except TimeoutError:
        raise Unavailable(f"pg_restore said nothing for {silent_max_s:.0f} s", next_step="qubix restore --check verifies it") from None


async def _say(process: asyncio.subprocess.Process, what: str | bytes) -> None:
    assert process.stdin is not None  # noqa: S101  (typing: it is a pipe)
    process.stdin.write(what.encode() if isinstance(what, str) else what)
    await process.stdin.drain()


@contextlib.contextmanager
def _reached(url: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A database's address without its password, and the environment in which the programs find that."""
    target = sa.make_url(url).set(drivername="postgresql")
    with tempfile.TemporaryDirectory(prefix="qx-") as folder:
        path = Path(folder) / "pgpass"
        line = ":".join(["*", "*", "*", _escaped(target.username or ""), _escaped(target.password or "")])
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(line + "\n")
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGPASSFILE": str(path), "HOME": folder, "PGAPPNAME": "qubix backup"}
        yield target._replace(password=None).render_as_string(), environment  # set(password=None) would leave it as it is


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace(":", "\\:")


async def _start(
    line: list[str], environment: dict[str, str], *, stdin: int = subprocess.DEVNULL, stdout: int | IO[bytes], stderr: IO[bytes]
) -> asyncio.subprocess.Process:
    program = str(binaries() / line[0])
    return await asyncio.create_subprocess_exec(program, *line[1:], stdin=stdin, stdout=stdout, stderr=stderr, env=environment)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _tail(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace").strip()[-800:]
