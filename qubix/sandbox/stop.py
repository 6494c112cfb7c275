"""Stop attempts and clean up after an agent that is gone: from any process of the same user, by what is written on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from qubix.sandbox import cgroup
from qubix.sandbox.state import Folder, State

KILL_S: Final = 3.0
RUNNER_S: Final = 1.0
"""For the process that ran a sandbox to say its end and to end itself, once the sandbox is gone."""


@dataclass(frozen=True)
class Stopped:
    """What a stop did. left: processes that would not die (0, or the device must stay locked)."""

    found: bool
    by_force: bool
    left: int
    took_s: float


@dataclass(frozen=True)
class Cleaned:
    """What the janitor found: attempts killed, folders removed, and attempts of which a process would not die."""

    killed: tuple[UUID, ...]
    removed: int
    stuck: tuple[UUID, ...]


def stop(base: Path, attempt: UUID, *, grace_s: float = 1.0) -> Stopped:
    """Ask the job to end (SIGTERM), then kill its whole tree; `run` reports STOPPED.

    grace_s: seconds between the two, 0 to kill at once. An attempt that has not started yet will not start.
    """
    began = time.monotonic()
    folder = Folder.of(base, attempt)
    _mark(folder)
    state = State.read(folder)
    if state is None:
        return Stopped(False, False, 0, time.monotonic() - began)
    if grace_s > 0 and state.inside.send(signal.SIGTERM) and state.inside.wait(grace_s):
        left = _wait(state)
        if not left:
            return Stopped(True, False, 0, time.monotonic() - began)
    return Stopped(True, True, _kill(state), time.monotonic() - began)


def alive(base: Path) -> tuple[UUID, ...]:
    """Attempts below `base` that still have a process."""
    return tuple(attempt for attempt, folder in _attempts(base) if (state := State.read(folder)) is not None and state.left())


def clean(base: Path) -> Cleaned:
    """The janitor: kill what an earlier agent left, remove its groups and folders. Call it before any attempt starts."""
    killed: list[UUID] = []
    stuck: list[UUID] = []
    removed = 0
    for attempt, folder in _attempts(base):
        state = State.read(folder)
        if state is not None and state.left():
            killed.append(attempt)
        if _bury(folder, state):
            removed += 1
        else:
            stuck.append(attempt)
    cgroup.sweep(cgroup.find())
    return Cleaned(tuple(killed), removed, tuple(stuck))


def bury(base: Path, attempt: UUID, *, gone: bool = False) -> bool:
    """Kill and remove what the death of its runner left of one attempt. Returns: whether all of it is gone.

    Where nothing has started, a mark stays that nothing shall: a runner given up as dead may only have been late.
    Args: gone, it is known that it is not late, so that nothing needs to stay.
    """
    folder = Folder.of(base, attempt)
    _mark(folder)
    state = State.read(folder)
    return (state is None and not gone) or _bury(folder, state)


def _mark(folder: Folder) -> None:
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.stop_mark.touch()


def _bury(folder: Folder, state: State | None) -> bool:
    if state is not None:
        folder.stop_mark.touch()
        if state.left() and _kill(state):
            return False
        if state.runner.pid != os.getpid() and not state.runner.wait(RUNNER_S):
            state.runner.send(signal.SIGKILL)  # given up, and alive: it holds the devices, and waits for a reader that is frozen
        state.group.remove()
    else:
        group = cgroup.named(cgroup.find(), folder.path.name)  # of one that died before it wrote down what it is
        if group.kill(KILL_S):
            return False
        group.remove()
    folder.remove()
    return True


def _attempts(base: Path) -> Iterator[tuple[UUID, Folder]]:
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((base / "attempts").iterdir()):
            with contextlib.suppress(ValueError):
                yield UUID(path.name), Folder(path)


def _kill(state: State) -> int:
    for process in (state.inside, state.monitor):
        process.send(signal.SIGKILL)
    state.inside.wait(KILL_S)
    state.group.kill(KILL_S)
    return _wait(state)


def _wait(state: State) -> int:
    """Wait a little for the rest to go. Returns: what is left."""
    deadline = time.monotonic() + KILL_S / 3
    while (left := state.left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
