"""The fabric port: the cluster's machines as the platform sees them. In memory for tests, Ray in production.

One contract suite, tests/contract/test_fabric.py, runs on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from qubix.agent.runner import Runner
from qubix.kernel.errors import Unavailable


@dataclass(frozen=True, slots=True)
class FabricNode:
    """One machine of the cluster. Its labels are its own word."""

    ray_node_id: str
    labels: Mapping[str, str] = field(hash=False)
    alive: bool
    gpus: int = 0


class AgentNotJoined(Unavailable):
    """The machine carries a provider's labels, but its agent's home has no identity."""

    code = "agent_not_joined"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a machine needs to join by itself. The token works once, for minutes."""

    server_url: str
    token: str = field(repr=False)


class Fabric(Protocol):
    """The cluster."""

    async def nodes(self) -> tuple[FabricNode, ...]:
        """All machines, the dead ones among them too. Raises: Unavailable while the cluster's head is away."""
        ...

    async def ensure_agent(self, ray_node_id: str) -> bool:
        """Start the node's agent unless it runs. Returns: whether one was started now.

        Raises: AgentNotJoined where the machine has no identity yet (a plain `ray start`); Unavailable.
        """
        ...

    async def enrol_agent(self, ray_node_id: str, enrolment: Enrolment) -> None:
        """Let such a machine join by itself; `ensure_agent` then starts its agent. Raises: Unavailable."""
        ...

    async def stop_agent(self, ray_node_id: str) -> bool:
        """End the node's agent and its attempts. Returns: whether there was one."""
        ...

    def runner(self, ray_node_id: str) -> Runner:
        """What runs attempts on that node. In production only the node's own agent uses one."""
        ...


class NodeReports(Protocol):
    """Where the fabric daemon tells what it saw; implemented by the providers' store under the narrow role qubix_fabric."""

    async def node_seen(self, worker_id: str, ray_node_id: str, labels: Mapping[str, str]) -> None:
        """A provider node is alive in the cluster under this Ray id. Repeats are harmless."""
        ...

    async def node_dead(self, ray_node_id: str) -> None:
        """The cluster declared that Ray node dead. Repeats are harmless."""
        ...

    async def join_token(self, provider_id: UUID) -> str | None:
        """A join token for a machine that carries this provider's label; None: there is no such provider."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from the last look."""

    seen: tuple[FabricNode, ...] = ()
    dead: tuple[str, ...] = ()


class NodeWatch:
    """Turns looks at the cluster into news: every node is seen once per change of its labels, and dies once. Pure."""

    def __init__(self) -> None:
        self._alive: dict[str, Mapping[str, str]] = {}
        self._dead: set[str] = set()

    def compare(self, nodes: Iterable[FabricNode]) -> Changes:
        """What is new in this look. A node that is listed no more, though it was alive, is dead."""
        listed = {n.ray_node_id: n for n in nodes}
        seen = tuple(
            n for n in listed.values() if n.alive and self._alive.get(n.ray_node_id) != n.labels and n.ray_node_id not in self._dead
        )
        gone = [i for i in self._alive if i not in listed or not listed[i].alive]
        # A node that was dead at the first look died while nobody watched: that is news as well.
        unwatched = [i for i, n in listed.items() if not n.alive and i not in self._alive and i not in self._dead]
        for node in seen:
            self._alive[node.ray_node_id] = dict(node.labels)
        dead = tuple(dict.fromkeys([*gone, *unwatched]))
        for ray_node_id in dead:
            self._alive.pop(ray_node_id, None)
            self._dead.add(ray_node_id)
        return Changes(seen, dead)

    def retry_seen(self, ray_node_id: str) -> None:
        """The news that it is alive did not get through: tell it again."""
        self._alive.pop(ray_node_id, None)

    def retry_dead(self, ray_node_id: str) -> None:
        """The news of its death did not get through: tell it again."""
        self._dead.discard(ray_node_id)
