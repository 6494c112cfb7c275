"""What the agent asks of the sandbox beside running attempts: does it work here, what is left over, which jobs are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from uuid import UUID

from qubix.sandbox import probe, runtime, stop
from qubix.sandbox.spec import Program


class Containment(Protocol):
    """The sandbox of this node. The methods block; the agent calls them on a thread."""

    def probe(self) -> dict[str, str]:
        """`{"ok": "yes"|"no", "reason": …, "limits": …}`, found by running one."""
        ...

    def clean(self) -> None:
        """Kill and remove what an earlier agent left."""
        ...

    def bury(self, attempt: UUID, gone: bool) -> None:
        """Kill and remove what the death of its runner left of an attempt. Args: gone, as RunnerDied has it."""
        ...

    def locate(self, kind: str) -> Program:
        """The installed program of a job kind. Raises: kernel errors for an unknown one."""
        ...


class SandboxContainment:
    """Containment by qubix.sandbox."""

    def __init__(self, base: Path) -> None:
        """Args: base, the folder in which the sandboxes of this agent live."""
        self._base = base

    def probe(self) -> dict[str, str]:
        try:
            return probe.probe(self._base).facts()
        except Exception as error:
            # Whatever goes wrong here would go wrong in an attempt too: the node then takes none, and says why.
            return {"ok": "no", "reason": f"{type(error).__name__}: {error}"[:300]}

    def clean(self) -> None:
        stop.clean(self._base)

    def bury(self, attempt: UUID, gone: bool) -> None:
        stop.bury(self._base, attempt, gone=gone)

    def locate(self, kind: str) -> Program:
        return runtime.locate(kind)
