"""The processes of a running platform and its nodes, by role, and what each of them holds. Linux: reads /proc."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_ROLES: Final = (
    (re.compile(r"^ray::ServeReplica"), "replica"),
    (re.compile(r"^ray::NodeAgent"), "agent"),
    (re.compile(r"^ray::AttemptHost|-m qubix\.agent\.fork_server"), "attempts"),
    (re.compile(r"^ray::Board"), "live board"),
    (re.compile(r"^ray::(?!IDLE)(\w+)"), r"ray \1"),
    (re.compile(r"^postgres:"), "postgres session"),
    (re.compile(r"/postgres -D"), "postgres"),
    (re.compile(r"-m qubix\.cli\.main up"), "supervisor"),
    (re.compile(r"-m qubix\.cli\.main provider join"), "node supervisor"),
    (re.compile(r"-m qubix\.(\w+)"), r"\1"),
    (re.compile(r"/haproxy "), "haproxy"),
    (re.compile(r"/(gcs_server|raylet) "), r"ray \1"),  # a raylet's line names default_worker.py too
    (re.compile(r"default_worker\.py|^ray::IDLE"), "ray worker"),
    (re.compile(r"ray\.scripts\.scripts"), "ray start"),
    (re.compile(r"monitor\.py|ray\.util\.client\.server"), "ray head part"),
    (re.compile(r"dashboard|multiprocessing\.(forkserver|resource_tracker)"), "ray dashboard"),
)
SANDBOX: Final = re.compile(r"/(stage|init)\.py |/bwrap")


@dataclass(frozen=True)
class Held:
    """What one process, or all of one role, hold: memory in MiB, open files, threads, and how many processes they are."""

    rss_mb: float
    pss_mb: float
    files: float
    threads: float
    processes: float = 1

    def __add__(self, other: Held) -> Held:
        return Held(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


def role_of(line: str) -> str:
    """The role of a process by its command line: what the platform consists of, a sandbox, or `other`."""
    if SANDBOX.search(line):
        return "sandbox"
    for pattern, role in _ROLES:
        if found := pattern.search(line):
            return found.expand(role)
    return "other"


def trees(pids: Iterable[int]) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of these trees, with its role. What runs below a sandbox is a sandbox."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from _below(psutil.Process(pid), "other")


def _below(process: psutil.Process, parent_role: str) -> Iterator[tuple[str, psutil.Process]]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        role = "sandbox" if parent_role == "sandbox" else role_of(" ".join(process.cmdline()))
        yield role, process
        for child in process.children():
            yield from _below(child, role)


def held(pid: int) -> Held:
    """What one process holds now. Raises: OSError when it is gone."""
    root = Path(f"/proc/{pid}")
    roll = _kib(root / "smaps_rollup")
    threads = int(_fields(root / "status")["Threads"])
    return Held(roll["Rss"] / 1024, roll["Pss"] / 1024, sum(1 for _ in (root / "fd").iterdir()), threads)


def by_role(pids: Iterable[int]) -> Mapping[str, Held]:
    """What the processes of each role in these trees hold together."""
    found: dict[str, Held] = {}
    for role, process in trees(pids):
        with contextlib.suppress(OSError, KeyError):
            one = held(process.pid)
            found[role] = found[role] + one if role in found else one
    return found


class PeakRss:
    """The largest resident size of a process since this was made, beside what it was then."""

    def __init__(self, pid: int) -> None:
        """Starts the kernel's own count of the peak anew."""
        self._root = Path(f"/proc/{pid}")
        (self._root / "clear_refs").write_text("5")
        self.before_mb = self._mib("VmRSS")

    def grown_mb(self) -> float:
        """MiB by which the peak lies above the beginning."""
        return self._mib("VmHWM") - self.before_mb

    def _mib(self, name: str) -> float:
        return int(_fields(self._root / "status")[name].split()[0]) / 1024


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _kib(path: Path) -> dict[str, int]:
    return {name: int(value.split()[0]) for name, value in _fields(path).items() if value.endswith("kB")}
