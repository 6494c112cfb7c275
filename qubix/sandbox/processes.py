"""Processes by identity, not by number alone: a number is used again, a number with its start time is not."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """A process of this boot: number and start time in clock ticks."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now."""
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether it still runs; one that only waits to be reaped does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in ("Z", "X")

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to it and to no other. False: it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended. False: it has not, or nobody can tell (no descriptor is left)."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        try:
            looking = select.poll()  # select cannot take a descriptor above 1023
            looking.register(descriptor, select.POLLIN)
            deadline = time.monotonic() + timeout_s
            while self.alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                looking.poll(min(left, 0.5) * 1000)
            return True
        finally:
            os.close(descriptor)


def descendants(pid: int) -> set[int]:
    """A process and all below it. Orphans inside a sandbox become children of its first process, so none is missed."""
    found, pending = {pid}, [pid]
    while pending:
        for path in _children_files(pending.pop()):
            with contextlib.suppress(OSError):
                children = {int(word) for word in path.read_text().split()} - found
                found |= children
                pending += children
    return found


def _children_files(pid: int) -> list[Path]:
    """Where the kernel lists the children of each thread; none of a process that has ended meanwhile."""
    folder = Path(f"/proc/{pid}/task")
    try:
        return [folder / thread / "children" for thread in os.listdir(folder)]
    except OSError:
        return []


def memory_bytes(pids: Iterable[int]) -> int:
    """What processes hold in memory; a page that several share is counted once where the kernel tells, else in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total


def resident_bytes(pids: Iterable[int]) -> int:
    """An upper bound of memory_bytes that costs far less to read."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return total


def unlinked_bytes(pids: Iterable[int], device: int) -> int:
    """Bytes on disk of open files that no folder names any more, on the file system with that device number."""
    found: dict[int, int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            with contextlib.suppress(OSError):
                file = os.stat(f"/proc/{pid}/fd/{name}")
                if file.st_dev == device and file.st_nlink == 0 and stat.S_ISREG(file.st_mode):
                    found[file.st_ino] = file.st_blocks * 512
    return sum(found.values())


@functools.cache
def boot_id() -> str:
    """Changes when the machine starts anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat behind the name: state first, start time at 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
