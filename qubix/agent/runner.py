"""The port through which an agent runs attempts; Ray is one implementation, a fake another. The agent never imports Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from qubix.sandbox.events import Ended, SandboxEvent
from qubix.sandbox.spec import SandboxSpec

STOP_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One attempt, ready to run."""

    spec: SandboxSpec
    locks: tuple[tuple[str, Path], ...] = ()
    """Per device its uuid and lock file: the runner locks all of them or none, and the sandbox inherits the descriptors."""

    @property
    def attempt(self) -> UUID:
        return self.spec.attempt

    @property
    def gpus(self) -> int:
        """Devices that the attempt occupies."""
        return len(self.locks)


@dataclass(frozen=True, slots=True)
class RunnerDied:
    """The process that ran the sandbox is gone, or never started; the sandbox died with it.

    Args: gone, it is known that nothing of the attempt can start any more; otherwise it may only have been late.
    """

    detail: str
    gone: bool = False


RunnerEvent = SandboxEvent | RunnerDied


class Runner(Protocol):
    """Runs attempts on this node."""

    def start(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        """Run an attempt; its events in order. The last one, and only the last, is Ended or RunnerDied."""
        ...

    async def stop(self, attempt: UUID, grace_s: float = STOP_GRACE_S) -> None:
        """End an attempt's processes; its event stream then ends with Ended(STOPPED), or RunnerDied if force was needed.

        Unknown or ended attempts: nothing happens. Args: grace_s, seconds before SIGKILL.
        """
        ...

    async def warm(self) -> None:
        """Make the next start fast, if that can be done; never raises."""
        ...


def is_last(event: RunnerEvent) -> bool:
    """Whether an event closes its attempt's stream."""
    return isinstance(event, Ended | RunnerDied)
