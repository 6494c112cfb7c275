"""The processes of a running platform and its nodes, by role, and what each of them holds. Linux: reads /proc."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import threading
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
    (re.compile(r"^ray::(DashboardAgent|RuntimeEnvAgent)"), "ray node agents"),
    (re.compile(r"^ray::(?!IDLE)(\w+)"), r"ray \1"),
    (re.compile(r"^postgres:"), "postgres session"),
    (re.compile(r"/postgres -D"), "postgres"),
    (re.compile(r"-m qubix\.cli\.main up"), "supervisor"),
    (re.compile(r"-m qubix\.cli\.main provider join"), "node supervisor"),
    (re.compile(r"-m qubix\.fabric\.ray_start"), "ray start"),
    (re.compile(r"-m qubix\.(\w+)"), r"\1"),
    (re.compile(r"-m serve_app\.deployment"), "deployment"),
    (re.compile(r"/haproxy "), "haproxy"),
    (re.compile(r"/dashboard/agent\.py|/runtime_env/agent/main\.py"), "ray node agents"),  # before they rename themselves
    (re.compile(r"/(gcs_server|raylet) "), r"ray \1"),  # a raylet's line names default_worker.py too
    (re.compile(r"default_worker\.py|^ray::IDLE"), "ray worker"),
    (re.compile(r"monitor\.py"), "ray head part"),
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


class Processor:
    """What the machine's processes burn while this is open, by role: each is read every `every_s`, so of what ends a little is missed.

    `seconds` has them afterwards; `machine` is what the kernel counted for all together.
    """

    def __init__(self, every_s: float = 0.2) -> None:
        self._every_s, self._over = every_s, threading.Event()
        self._seen: dict[tuple[str, str], float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.machine = 0.0

    def __enter__(self) -> Processor:
        self._look()
        self.seconds.clear()
        self.machine = -_busy_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.machine += _busy_s()

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        for root in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                fields = (root / "stat").read_text().rpartition(")")[2].split()
                key, used_s = (root.name, fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS
                if used_s > self._seen.get(key, 0.0):
                    line = (root / "cmdline").read_text().replace("\0", " ")
                    self.seconds["benchmark" if "-m benchmarks." in line else role_of(line)] += used_s - self._seen.get(key, 0.0)
                    self._seen[key] = used_s


_TICKS: Final = os.sysconf("SC_CLK_TCK")


def _busy_s() -> float:
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS


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
