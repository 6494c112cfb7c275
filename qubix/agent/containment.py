"""What the agent asks of the sandbox beside running attempts: does it work here, what is left over, which jobs are installed."""

from __future__ import annotations

from typing import Protocol

from qubix.sandbox.spec import Program


class Containment(Protocol):
    """The sandbox of this node. The methods block; the agent calls them on a thread."""

    def probe(self) -> dict[str, str]:
        """`{"ok": "yes"|"no", "reason": …, "limits": …}`, found by running one."""
        ...

    def clean(self) -> None:
        """Kill and remove what an earlier agent left."""
        ...

    def locate(self, kind: str) -> Program:
        """The installed program of a job kind. Raises: kernel errors for an unknown one."""
        ...
