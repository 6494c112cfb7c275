"""Process facts from /proc, and ending processes that are ours: by pid and start time, so a reused pid is never hit."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL_S: Final = 0.05


@dataclasses.dataclass(frozen=True)
class Running:
    """One process for good: the pid alone may come to mean another. `started` is in clock ticks since boot."""

    pid: int
    started: int


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state, parent, start time) of a process, None when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return after_name[0], int(after_name[1]), int(after_name[19])


def seen(pid: int) -> Running | None:
    """The process that has this pid now, None when there is none, or only its remains (a zombie)."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else Running(pid, stat[2])


def alive(process: Running) -> bool:
    """Whether this very process still runs."""
    return seen(process.pid) == process


def descendants(root: int) -> list[Running]:
    """Every process below `root`, nearest first."""
    below: dict[int, list[Running]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) is not None and stat[0] not in "ZX":
            below.setdefault(stat[1], []).append(Running(int(entry), stat[2]))
    found: list[Running] = []
    queue = [root]
    while queue:
        for child in below.get(queue.pop(0), []):
            found.append(child)
            queue.append(child.pid)
    return found


def strays(root: int, kept: Iterable[int]) -> list[Running]:
    """Every process below `root` that is neither one of `kept` nor below one of them."""
    found = descendants(root)  # first: what is born meanwhile below one of `kept` would else be taken for a stray
    mine = set(kept)
    spared = mine | {below.pid for pid in mine for below in descendants(pid)}
    return [one for one in found if one.pid not in spared]


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process (Ray's helpers outlive their raylet), so that none escapes the stop."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(keep: Iterable[int] = ()) -> None:
    """Collect dead adopted children, up to one of those in `keep`, whose owners wait for them (and look more often than this is called)."""
    kept = set(keep)
    with contextlib.suppress(ChildProcessError):  # there are no children at all
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid in kept:
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


def end(targets: Iterable[Running], *, grace_s: float, first: signal.Signals = signal.SIGTERM) -> list[Running]:
    """The first signal, wait up to `grace_s`, SIGKILL. Returns: those that needed the second."""
    wanted = list(targets)
    waiting = [target for target in wanted if alive(target)]
    for target in waiting:
        _signal(target, first)
    waiting = _wait(waiting, grace_s)
    for target in waiting:
        _signal(target, signal.SIGKILL)
    _wait(waiting, 5.0)
    for target in wanted:
        with contextlib.suppress(ChildProcessError):  # only our own children leave us their remains
            os.waitpid(target.pid, os.WNOHANG)
    return waiting


def _wait(targets: list[Running], timeout_s: float) -> list[Running]:
    deadline = time.monotonic() + timeout_s
    waiting = targets
    while waiting and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        waiting = [target for target in waiting if alive(target)]
    return waiting


def _signal(target: Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if alive(target):
            os.kill(target.pid, number)
