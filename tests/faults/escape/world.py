"""Two machines of a real platform, one on each rung of the sandbox, and people at terminals who attack them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

import psutil

from qubix.cli import runfile
from qubix.cli.client import Client
from tests.faults.escape.suite import script
from tests.whole import PASSWORD, Machine, Whole

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parents[2]
NOBODY: Final = 65534
COMMAND_TIMEOUT_S: Final = 900.0
GPUS: Final = {"root": "RTX_A6000", "ordinary": "L40"}
"""By the user that a machine's node runs as: the model that it declares, by which a job finds it and no other."""
AT_ONCE: Final = 4


class Terminals:
    """Runs commands of `qubix`, several at once, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "terminal.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._ends: dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in cast(IO[bytes], self._process.stdout):
            number, code = json.loads(line)
            self._ends[number].set_result(code)

    def run(self, argv: list[str], *, config: Path, folder: Path) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of one command."""
        with self._lock:
            number = len(self._ends)
            end = self._ends[number] = Future()
            out, err = folder / f"{number}.out", folder / f"{number}.err"
            asked = {
                "id": number,
                "argv": argv,
                "environment": {"QUBIX_CONFIG": str(config)},
                "folder": str(folder),
                "out": str(out),
                "err": str(err),
            }
            cast(IO[bytes], self._process.stdin).write(json.dumps(asked).encode() + b"\n")
        code = end.result(COMMAND_TIMEOUT_S)
        return code, out.read_text(errors="surrogateescape"), err.read_text(errors="surrogateescape")

    def close(self) -> None:
        """End it; commands under way go on to their end."""
        cast(IO[bytes], self._process.stdin).close()
        self._process.wait(10)
        self._reader.join()
        cast(IO[bytes], self._process.stdout).close()


@dataclass(frozen=True)
class Person:
    """Somebody with an account of their own, who types commands."""

    terminals: Terminals
    folder: Path
    name: str

    @property
    def config(self) -> Path:
        """Where the command line keeps who they are."""
        return self.folder / f"{self.name}.json"

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a command."""
        return self.terminals.run(list(argv), config=self.config, folder=self.folder)

    def told(self, *argv: str, codes: tuple[int, ...] = (0,)) -> Any:
        """The one JSON document that a command prints."""
        code, said, aside = self.run(*argv, "--json")
        assert code in codes, (argv, code, said, aside)
        assert said.count("\n") == 1, said
        return json.loads(said)

    def sign_up(self, url: str, funds: int) -> None:
        """Make the account, and fund it."""
        self.told("signup", "--url", url, "--email", f"{self.name}-{os.urandom(4).hex()}@qubix.example", "--password", PASSWORD)
        self.told("wallet", "faucet", str(funds))

    def saw_at_a_terminal(self, *argv: str) -> str:
        """What a command writes to a terminal."""
        ours, theirs = pty.openpty()
        line = [sys.executable, "-m", "qubix.cli.main", *argv]
        with subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=theirs, env={**os.environ, "QUBIX_CONFIG": str(self.config)}
        ) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: nobody writes to it any more
                while piece := os.read(ours, 1 << 16):
                    shown += piece
            os.close(ours)
        assert process.returncode == 0, shown
        return shown.decode()

    @property
    def key(self) -> str:
        """The API key that the command line keeps."""
        return str(json.loads(self.config.read_text())["api_key"])


@dataclass
class Rung:
    """A machine, whose it is, and who holds its limits. Args: user, that its node runs as; limits, as its agent found out."""

    user: str
    provider: Client
    machine: Machine
    limits: str
    processes_before: list[psutil.Process] = field(default_factory=list)

    @property
    def gpu(self) -> str:
        """The model by which jobs find it."""
        return GPUS[self.user]

    @property
    def name(self) -> str:
        """Of the ladder's rung."""
        return "rlimits" if self.limits == "rlimits" else "cgroup"

    def sandboxes(self) -> list[str]:
        """Processes of it that belong to an attempt."""
        found = []
        for process in self.machine.tree():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if process.name() == "bwrap" or "/opt/qubix/init.py" in process.cmdline():
                    found.append(str(process))
        return found

    def leftovers(self) -> list[str]:
        """What attempts left on the machine: folders, spooled frames, groups, mounts, loop devices."""
        home = self.machine.home
        found = [str(path) for folder in ("sandbox/attempts", "work", "spool") for path in (home / folder).glob("*")]
        attempts = {path.name for path in (home / "spool").glob("*")}
        found += [str(path) for path in Path("/sys/fs/cgroup").glob("**/qubix-*") if path.name.removeprefix("qubix-") in attempts]
        found += [line for line in Path(f"/proc/{self.machine.member_pid}/mountinfo").read_text().splitlines() if "/volume" in line]
        found += [str(path) for path in Path("/sys/block").glob("loop*/loop/backing_file") if str(home) in path.read_text()]
        return found


def kinds_of_user() -> tuple[str, ...]:
    """Whom a node can run as here."""
    return ("root", "ordinary") if os.geteuid() == 0 else ("ordinary",)


@contextlib.contextmanager
def joined(whole: Whole, user: str) -> Iterator[Rung]:
    """A machine with a few GPUs whose node runs as `user`; it leaves the market at the end.

    As root its processes see mounts of their own, as a second wall around the machine of whoever runs the tests; as an ordinary
    user below root it is nobody, who has no right to any control group.
    """
    provider = whole.account()
    folder = Path(tempfile.mkdtemp(prefix="qx-escape-", dir="/tmp"))
    before: list[str] = []
    own = {"HOME": str(folder)}
    run = runfile.read(whole.data_dir)
    assert run is not None
    token = folder / "ray.token"
    shutil.copyfile(run.facts["ray_token_file"], token)
    token.chmod(0o600)
    if os.geteuid() == 0 and user == "root":
        before = ["/usr/bin/unshare", "--mount", "--propagation", "private", "--"]
    elif os.geteuid() == 0:
        before = as_nobody()
        for path in (folder, token):
            os.chown(path, NOBODY, NOBODY)
    try:
        machine = whole.join(
            f"escape-{user}",
            f"{GPUS[user]}:48GB:{AT_ONCE}",
            3_600_000,
            provider,
            before=before,
            folder=folder,
            token=token,
            environment=own,
        )
        sandbox = provider.get(f"/api/nodes/{machine.node_id}")["sandbox"]
        assert sandbox["ok"] == "yes", sandbox
        yield Rung(user, provider, machine, sandbox["limits"], machine.tree())
        provider.post(f"/api/nodes/{machine.node_id}/leave")
        whole.release(f"escape-{user}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, Any]]:
    """Listeners on the machine, open to everybody: TCP, abstract and file sockets."""
    with socket.create_server(("0.0.0.0", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as file:
        name, path = f"qubix-test-{os.urandom(8).hex()}", folder / "socket"
        abstract.bind("\0" + name)
        abstract.listen()
        file.bind(str(path))
        os.chmod(path, 0o777)
        file.listen()
        host = socket.gethostbyname(socket.gethostname())
        yield {"ports": [tcp.getsockname()[1]], "abstract": [name], "sockets": [str(path)], "host": host}


def as_nobody(*words: str) -> list[str]:
    """A command line that runs as nobody where this process is root, else as it stands."""
    if os.geteuid() != 0:
        return list(words)
    sources = dict.fromkeys([sys.base_prefix, sys.prefix, sysconfig.get_paths()["purelib"], str(REPOSITORY)])
    return [sys.executable, "-I", "-S", str(REPOSITORY / "tests/sandbox/as_nobody.py"), *sources, "--", *words]


def outside(folder: Path, name: str) -> str:
    """What an attack prints that runs as nobody, outside of any sandbox. Only for those that read."""
    place = Path(tempfile.mkdtemp(prefix="qx-control-", dir="/tmp"))
    try:
        place.chmod(0o755)
        shutil.copytree(REPOSITORY / "jobs_library" / "sdk", place / "qubix_job")
        (place / "secret.txt").write_text("TOP-SECRET")
        with services(place) as given:
            told = {**given, "world": False, "paths": [str(place / "secret.txt")], "application": f"http://127.0.0.1:{given['ports'][0]}"}
            (place / "main.py").write_text(script(name, told))
            python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
            line = as_nobody(python, "-B", str(place / "main.py"))
            secret = {"QUBIX_TEST_SECRET": "TOP-SECRET", "PATH": "/usr/bin:/bin"}
            return subprocess.run(line, env=secret, cwd=folder, capture_output=True, text=True, timeout=600, check=False).stdout
    finally:
        shutil.rmtree(place, ignore_errors=True)


def listening(processes: list[psutil.Process]) -> list[int]:
    """TCP ports on which these processes listen."""
    found: set[int] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return sorted(found)


def unix_sockets(folders: list[Path]) -> list[str]:
    """File sockets below these folders."""
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if path.is_socket())


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping; lists of the same name are joined."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = [*found.get(name, []), *value] if isinstance(value, list) else value
    return found
