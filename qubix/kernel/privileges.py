"""Run a program as another user with a private view of some folders: standard library and Linux system calls only.

Root may start PostgreSQL or a sandbox for a user without rights, but that user often cannot reach the binaries: an
interpreter in root's home, a clone below a folder of mode 0700. Changing those modes would open them to everybody, so
the folders are bind-mounted to a reachable place inside a mount namespace of the one process instead.

    python -I privileges.py --uid 65534 --bind SOURCE TARGET … -- PROGRAM ARGUMENT …
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
PR_SET_PDEATHSIG: Final = 1


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter(binds: Sequence[tuple[str, str]]) -> None:
    """Move this process into a mount namespace of its own and bind each (source, target) there.

    Raises: OSError when the kernel refuses (no CAP_SYS_ADMIN, most containers).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make the mounts private")
    for source, target in binds:
        _check(libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None), f"bind {source} to {target}")


def drop(uid: int, gid: int) -> None:
    """Become `uid` for good, with no other groups."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def command(argv: Sequence[str], *, uid: int, gid: int, binds: Sequence[tuple[str, str]] = (), die_with_parent: bool = False) -> list[str]:
    """The command line that runs `argv` as `uid` with those binds; run it as root."""
    line = [sys.executable, "-I", "-S", __file__, "--uid", str(uid), "--gid", str(gid)]
    for source, target in binds:
        line += ["--bind", source, target]
    if die_with_parent:
        line.append("--die-with-parent")
    return [*line, "--", *argv]


def main() -> None:
    """Entry point of the command line above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--bind", nargs=2, action="append", default=[])
    parser.add_argument("--die-with-parent", action="store_true")
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args()
    if options.bind:
        enter([(source, target) for source, target in options.bind])
    drop(options.uid, options.gid)
    if options.die_with_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 15)
    os.chdir("/")
    os.execv(options.argv[0], options.argv)  # noqa: S606  (the very purpose: no shell in between)


if __name__ == "__main__":
    main()
