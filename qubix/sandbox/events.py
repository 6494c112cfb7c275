"""What a running sandbox tells its caller, in order: Started first, Ended last and exactly once."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stream = Literal["out", "err", "agent"]


class Exit(enum.StrEnum):
    """Why a sandbox ended; the same words as the agent protocol's Exit (input_failed is the agent's own)."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    KILLED = "killed"
    """The whole sandbox, by something outside it; what a job does to itself is SIGNALLED."""
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_FLOOD = "output_flood"
    DISK_LIMIT = "disk_limit"
    STOPPED = "stopped"
    SANDBOX_FAILED = "sandbox_failed"


@dataclass(frozen=True)
class Started:
    """The job's code runs now; pid is its first process as the node sees it."""

    pid: int
    limits: Literal["cgroup2", "cgroup1", "rlimits"]
    start_ms: float


@dataclass(frozen=True)
class LogText:
    """Output: valid UTF-8 without NUL, at most 32 KiB; offset counts the bytes of this stream emitted before it."""

    stream: Stream
    offset: int
    text: str


@dataclass(frozen=True)
class ProgressReport:
    """The job's own word: 0 to 100 and what it is doing (at most 200 characters)."""

    pct: float
    operation: str


@dataclass(frozen=True)
class CheckpointReady:
    """A checkpoint lies in the spool folder; the job cannot reach that copy. Numbers grow by one from 1."""

    number: int
    path: Path
    sha256: str
    size: int
    pct: float
    ran_ms: int


@dataclass(frozen=True)
class RestoreFailed:
    """The job could not use the checkpoint that it was given."""

    reason: str


@dataclass(frozen=True)
class ArtefactReady:
    """An output file lies in the spool folder; name is its path below the job's output folder."""

    name: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Ended:
    """No process of the attempt is left. exit_code is set for EXITED, signal for SIGNALLED."""

    exit: Exit
    exit_code: int | None
    signal: int | None
    detail: str
    ran_ms: int
    log_ends: Mapping[str, int]
    dropped_bytes: int = 0
    rejected: tuple[tuple[str, str], ...] = ()
    """Output files that were not taken, with the reason."""
    left: int = 0
    """Processes still alive after the kill: 0, or the device must stay locked."""


SandboxEvent = Started | LogText | ProgressReport | CheckpointReady | RestoreFailed | ArtefactReady | Ended
