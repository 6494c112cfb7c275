"""The system-call filters: an allow-list of our own, default EPERM, compiled to BPF once.

Some rules depend on an argument: clone may not open a namespace, socket may not choose a family that the network
namespace does not contain, ioctl may not type into a terminal, prlimit64 may not touch another process: the limits of the
sandbox's first process decide whether it can still say how the job ended. clone3 hides its flags behind a pointer that no filter
can read; ENOSYS makes the C library fall back to clone.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any, Final

from qubix.sandbox.errors import SandboxUnavailable

ALLOWED_MIN: Final = 180
"""Fewer names known than this means that libseccomp and the list do not belong together."""
AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
AF_NETLINK: Final = 16
NETLINK_ROUTE: Final = 0
NAMESPACE_FLAGS: Final = 0x7E020000 | 0x00000080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME."""
TIOCSTI: Final = 0x5412
TIOCLINUX: Final = 0x541C
LOW_32: Final = 0xFFFFFFFF


def allowed_names() -> tuple[str, ...]:
    """The names in seccomp_allow.txt."""
    text = Path(__file__).with_name("seccomp_allow.txt").read_text()
    return tuple(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))


@functools.cache
def filters(cache: Path) -> tuple[bytes, bytes, bytes]:
    """Three BPF programs: the allow-list, the requests that ioctl must refuse, and what holds memory unseen.

    The first two are always loaded, the third where no cgroup counts memory.
    cache: a private folder where they are kept, since loading libseccomp takes longer than starting a sandbox.
    Raises: SandboxUnavailable when libseccomp is missing.
    """
    ingredients = [Path(__file__).read_bytes(), "\n".join(allowed_names()).encode(), platform.machine().encode()]
    key = hashlib.sha256(b"\0".join(ingredients)).hexdigest()[:16]
    kept = [cache / f"{name}-{key}.bpf" for name in ("allow", "refuse", "unseen")]
    try:
        allow, refuse, unseen = (path.read_bytes() for path in kept)
        return allow, refuse, unseen
    except FileNotFoundError:
        programs = _allow_list(_libseccomp()), _ioctl_refusals(_libseccomp()), _unseen_memory(_libseccomp())
        for path, program in zip(kept, programs, strict=True):
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_bytes(program)
            part.rename(path)
        return programs


def _libseccomp() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise SandboxUnavailable(
            f"libseccomp cannot be loaded: {error}", next_step="Install it: apt-get install libseccomp2 (or your system's package)."
        ) from error
    return pyseccomp


def _allow_list(s: Any) -> bytes:
    program = s.SyscallFilter(s.ERRNO(errno.EPERM))
    known = 0
    for name in allowed_names():
        try:
            program.add_rule(s.ALLOW, name)
            known += 1
        except (OSError, ValueError, RuntimeError):
            continue
    if known < ALLOWED_MIN:
        raise SandboxUnavailable(
            f"libseccomp knows only {known} of the {len(allowed_names())} allowed system calls",
            next_step="Install libseccomp 2.5 or newer.",
        )
    program.add_rule(s.ALLOW, "clone", s.Arg(0, s.MASKED_EQ, NAMESPACE_FLAGS, 0))
    program.add_rule(s.ERRNO(errno.ENOSYS), "clone3")
    for family in (AF_UNIX, AF_INET, AF_INET6):
        program.add_rule(s.ALLOW, "socket", s.Arg(0, s.EQ, family))
    program.add_rule(s.ALLOW, "socket", s.Arg(0, s.EQ, AF_NETLINK), s.Arg(2, s.EQ, NETLINK_ROUTE))
    program.add_rule(s.ALLOW, "socketpair", s.Arg(0, s.EQ, AF_UNIX))
    program.add_rule(s.ALLOW, "personality", s.Arg(0, s.EQ, LOW_32))
    program.add_rule(s.ALLOW, "prlimit64", s.Arg(0, s.MASKED_EQ, LOW_32, 0))
    program.add_rule(s.ALLOW, "ioctl")
    return _exported(program)


def _ioctl_refusals(s: Any) -> bytes:
    """A filter of its own, since one filter cannot both allow ioctl and refuse two of its requests.

    The kernel reads a request as 32 bits: comparing all 64 would let TIOCSTI through with a high bit set.
    """
    program = s.SyscallFilter(s.ALLOW)
    for request in (TIOCSTI, TIOCLINUX):
        program.add_rule(s.ERRNO(errno.EPERM), "ioctl", s.Arg(1, s.MASKED_EQ, LOW_32, request))
    return _exported(program)


def _unseen_memory(s: Any) -> bytes:
    """Files that lie in memory alone and segments that nobody has attached: in no process's own, so no look at processes finds them."""
    program = s.SyscallFilter(s.ALLOW)
    program.add_rule(s.ERRNO(errno.ENOSYS), "memfd_create")
    program.add_rule(s.ERRNO(errno.ENOSYS), "shmget")
    return _exported(program)


def _exported(program: Any) -> bytes:
    with os.fdopen(os.memfd_create("qubix-seccomp"), "rb+") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()
