"""Control groups: version 2 where a part of the tree is ours, else version 1 as root, else none.

Only the sandbox's first process is moved; all others are its children.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from qubix.sandbox.spec import Limits

PERIOD_US: Final = 100_000
OWN_PROCESSES: Final = 3
"""Bubblewrap and the first process inside are ours, and one may be starting."""
ABANDONED_S: Final = 60.0
"""A group without processes is this old before others may remove it: between its making and its first process lie milliseconds."""
Kind = Literal["cgroup2", "cgroup1", "rlimits"]


@dataclass(frozen=True)
class Hierarchy:
    """The folders in which a group per attempt can be made: one (version 2), or one per controller (version 1)."""

    kind: Kind
    parents: Mapping[str, Path]


@dataclass(frozen=True)
class Group:
    """The group of one attempt; no folders where only rlimits hold."""

    kind: Kind
    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Move a process in. Raises: OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int) -> bool:
        """Whether a process is in it, under all of its limits."""
        return all(str(pid) in (folder / "cgroup.procs").read_text().split() for folder in self.folders)

    def pids(self) -> set[int]:
        """The processes in it, zombies aside."""
        found: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                found |= {int(word) for word in (folder / "cgroup.procs").read_text().split()}
        return found

    def oom_kills(self) -> int:
        """How often the kernel killed a process in it for its memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    for line in (folder / name).read_text().splitlines():
                        key, _, value = line.partition(" ")
                        if key == "oom_kill":
                            return int(value)
        return 0

    def kill(self, timeout_s: float = 3.0) -> int:
        """Kill all that is in it. Returns: how many processes are left."""
        deadline = time.monotonic() + timeout_s
        while left := self.pids():
            for folder in self.folders:
                with contextlib.suppress(OSError):
                    (folder / "cgroup.kill").write_text("1")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            if time.monotonic() > deadline:
                return len(left)
            time.sleep(0.01)
        return 0

    def remove(self) -> bool:
        """Remove the folders. False: something is still in one."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.folders)


NONE: Final = Group("rlimits", ())


def find(mounts: str | None = None, own: str | None = None) -> Hierarchy:
    """The hierarchy that this process may use, found by looking; `probe` tries it.

    Args: the texts of /proc/self/mounts and /proc/self/cgroup, or None to read them.
    """
    mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    own = Path("/proc/self/cgroup").read_text() if own is None else own
    places = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in own.splitlines() if line.count(":") >= 2}
    parents: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, target, kind, options = line.split(" ")[:4]
        if kind == "cgroup2" and _usable_2(Path(target)):
            here = Path(target) / places.get("", "/").lstrip("/")
            return Hierarchy("cgroup2", {"": here if here == Path(target) else here.parent})
        if kind == "cgroup":
            for controllers, place in places.items():
                names = set(controllers.split(","))
                for name in ("memory", "pids", "cpu"):
                    if name in names and name in options.split(","):
                        parents[name] = Path(target) / place.lstrip("/")
    if {"memory", "pids", "cpu"} <= parents.keys() and all(os.access(folder, os.W_OK) for folder in parents.values()):
        return Hierarchy("cgroup1", parents)
    return Hierarchy("rlimits", {})


def create(hierarchy: Hierarchy, name: str, limits: Limits) -> Group:
    """A group named qubix-<name> with these limits. Raises: OSError; then nothing is left of it."""
    settings = _settings_2(limits) if hierarchy.kind == "cgroup2" else _settings_1(limits)
    made: list[Path] = []
    try:
        for controller, parent in hierarchy.parents.items():
            if hierarchy.kind == "cgroup2":
                with contextlib.suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
            folder = parent / f"qubix-{name}"
            folder.mkdir(exist_ok=True)
            made.append(folder)
            for file, value in settings[controller]:
                _write(folder / file, value)
    except OSError:
        Group(hierarchy.kind, tuple(made)).remove()
        raise
    return Group(hierarchy.kind, tuple(made))


def named(hierarchy: Hierarchy, name: str) -> Group:
    """The group that `create` made or would make by this name."""
    return Group(hierarchy.kind, tuple(parent / f"qubix-{name}" for parent in hierarchy.parents.values()))


def sweep(hierarchy: Hierarchy) -> int:
    """Remove groups of attempts that are long over, of whatever agent: a killed one leaves its own, empty. Returns: how many."""
    removed = 0
    for parent in hierarchy.parents.values():
        for folder in parent.glob("qubix-*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > ABANDONED_S:
                    folder.rmdir()
                    removed += 1
    return removed


def _settings_2(limits: Limits) -> Mapping[str, Sequence[tuple[str, str]]]:
    return {
        "": (
            ("memory.max", str(limits.memory_bytes)),
            ("memory.swap.max?", "0"),
            ("memory.oom.group?", "1"),
            ("pids.max", str(limits.pids_max + OWN_PROCESSES)),
            ("cpu.max", f"{int(limits.cpus * PERIOD_US)} {PERIOD_US}"),
        )
    }


def _settings_1(limits: Limits) -> Mapping[str, Sequence[tuple[str, str]]]:
    memory = str(limits.memory_bytes)
    return {
        "memory": (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes?", memory)),
        "pids": (("pids.max", str(limits.pids_max + OWN_PROCESSES)),),
        "cpu": (("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(int(limits.cpus * PERIOD_US)))),
    }


def _write(file: Path, value: str) -> None:
    """Write a setting; a name that ends in '?' may be missing (no swap accounting)."""
    if file.name.endswith("?"):
        file = file.with_name(file.name[:-1])
        if not file.exists():
            return
    file.write_text(value)


def _usable_2(root: Path) -> bool:
    try:
        return {"memory", "pids", "cpu"} <= set((root / "cgroup.controllers").read_text().split())
    except OSError:
        return False
