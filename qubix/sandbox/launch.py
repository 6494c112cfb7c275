"""Start bubblewrap: as an ordinary user directly, as root through a stage that hides, binds and drops."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.sandbox import command, runtime, seccomp
from qubix.sandbox.errors import SandboxFailed, SandboxUnavailable
from qubix.sandbox.spec import InvalidSpec, SandboxSpec
from qubix.sandbox.state import Folder

USER_FIRST: Final = 1_900_000_000
"""User ids for concurrent attempts when root; nothing else uses this range."""
SLOTS: Final = 1000


@dataclass(frozen=True)
class Slot:
    """A user id that no other attempt on this machine has now; a name in the abstract socket namespace holds it."""

    uid: int
    hold: socket.socket

    @classmethod
    def take(cls) -> Slot:
        """Raises: SandboxFailed when none is free."""
        first = _user_first()
        for number in range(SLOTS):
            hold = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                hold.bind(f"\0qubix-sandbox-user-{first + number}")
            except OSError:
                hold.close()
            else:
                return cls(first + number, hold)
        raise SandboxFailed("all user ids for sandboxes are taken", next_step="Wait until an attempt ends.")


@dataclass(frozen=True)
class Launched:
    """A sandbox that starts; the runner's ends of its pipes."""

    monitor: subprocess.Popen[bytes]
    out: int
    err: int
    control: int
    status: int
    info: int
    go: int

    def close(self) -> None:
        """Close all ends."""
        for descriptor in (self.out, self.err, self.control, self.status, self.info, self.go):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def start(
    spec: SandboxSpec, folder: Folder, *, uid: int | None, template: Path | None, rlimit_memory: bool, inherit_fds: Sequence[int]
) -> Launched:
    """Start it; the job itself waits for a byte on `go`.

    uid: the user to become (root only). template: the file system for the job's files, None: the attempt's folder.
    inherit_fds: descriptors that stay open until the sandbox's first process ends; the job itself does not get them.
    Raises: OSError, SandboxUnavailable, InvalidSpec.
    """
    _check_inherited(inherit_fds)
    places = command.Places(
        bwrap=runtime.bwrap(),
        interpreter=runtime.interpreter(),
        python_prefix=Path(sys.base_prefix),
        site_packages=runtime.site_packages(),
        init=Path(__file__).with_name("init.py"),
        output=folder.output,
        checkpoints=folder.checkpoints,
    )
    reach = command.Reach()
    if uid is not None:
        sources = command.sources(spec, places, own_volume=template is not None)
        reach = command.Reach(_cover(), sources, folder.path if template else None)
    programs = seccomp.filters(_private(spec.base / "seccomp"))[: 3 if rlimit_memory else 2]
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        pipes = {name: os.pipe() for name in ("out", "err", "control", "status", "info", "go")}
        for name, (reading, writing) in pipes.items():
            theirs.callback(os.close, reading if name == "go" else writing)
            ours.callback(os.close, writing if name == "go" else reading)
        files = [theirs.enter_context(_memory(content)) for content in (*programs, command.PASSWD, command.HOSTS)]
        *filters, passwd, hosts = files
        descriptors = command.Descriptors(
            filters=tuple(filters),
            passwd=passwd,
            hosts=hosts,
            info=pipes["info"][1],
            go=pipes["go"][0],
            status=pipes["status"][1],
            control=pipes["control"][1],
        )
        arguments = command.bwrap_arguments(spec, places, reach, descriptors, system_links=_system_links())
        listed = theirs.enter_context(_memory("".join(f"{word}\0" for word in arguments).encode()))
        line = [reach(places.bwrap), "--args", str(listed), "--"]
        line += command.program(spec, places, descriptors, rlimit_memory=rlimit_memory)
        if uid is not None:
            stage = [str(places.interpreter), "-I", "-S", str(Path(__file__).with_name("stage.py"))]
            stage += [str(uid), str(os.getpid()), reach.over, str(template or "-"), str(folder.path)]
            line = [*stage, str(len(reach.sources)), *map(str, reach.sources), *line]
        monitor = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=pipes["out"][1],
            stderr=pipes["err"][1],
            pass_fds=(*files, listed, pipes["info"][1], pipes["go"][0], pipes["status"][1], pipes["control"][1], *inherit_fds),
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
        )
        ours.pop_all()
    readers = {name: reading for name, (reading, _) in pipes.items() if name != "go"}
    for descriptor in readers.values():
        os.set_blocking(descriptor, False)
    return Launched(monitor, go=pipes["go"][1], **readers)


@contextlib.contextmanager
def _memory(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("qubix-sandbox")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _system_links() -> dict[str, str]:
    return {name: os.readlink(f"/{name}").lstrip("/") for name in ("bin", "lib", "lib64", "sbin") if os.path.islink(f"/{name}")}


def _cover() -> str:
    """A folder that everybody can reach, for root's stage to mount over in its own namespace."""
    for candidate in ("/mnt", "/tmp", "/var/tmp", "/run"):  # noqa: S108
        if os.path.isdir(candidate) and not os.path.islink(candidate):
            return candidate
    raise SandboxUnavailable("there is no /mnt, /tmp, /var/tmp or /run here", next_step="Create /mnt.")


def _check_inherited(descriptors: Sequence[int]) -> None:
    """A job must not get a descriptor that leads anywhere: read-only regular files, such as a device's lock."""
    for number in descriptors:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode) or fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            raise InvalidSpec(f"descriptor {number} is no regular file opened for reading", next_step="Open lock files with O_RDONLY.")


def _user_first() -> int:
    """USER_FIRST, or the last ids that this user namespace has."""
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    end = max(first + count for first, _, count in ranges)
    return USER_FIRST if end > USER_FIRST + SLOTS else max(1000, end - SLOTS - 1000)
