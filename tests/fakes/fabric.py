"""A cluster in memory, and the reports of a daemon that watched one."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

from qubix.kernel.errors import Unavailable
from qubix.scheduling.fabric import AgentNotJoined, Enrolment, FabricNode
from tests.fakes.runner import FakeRunner


class FakeFabric:
    """Nodes that a test adds and kills."""

    def __init__(self) -> None:
        self._nodes: dict[str, FabricNode] = {}
        self._runners: dict[str, FakeRunner] = {}
        self.agents: set[str] = set()
        self.agents_started = 0
        self.away = False
        self.unjoined: set[str] = set()
        self.enrolled: list[Enrolment] = []

    def add_node(self, labels: Mapping[str, str], gpus: int = 1) -> str:
        """A machine joins."""
        ray_node_id = uuid4().hex
        self._nodes[ray_node_id] = FabricNode(ray_node_id, dict(labels), True, gpus)
        self._runners[ray_node_id] = FakeRunner(gpus)
        return ray_node_id

    def kill_node(self, ray_node_id: str) -> None:
        """A machine dies, and its agent with it."""
        node = self._nodes[ray_node_id]
        self._nodes[ray_node_id] = FabricNode(ray_node_id, node.labels, False, node.gpus)
        self._runners[ray_node_id].gpus = 0
        self.agents.discard(ray_node_id)

    def kill_agent(self, ray_node_id: str) -> None:
        """An agent dies on a machine that lives."""
        self.agents.discard(ray_node_id)

    async def nodes(self) -> tuple[FabricNode, ...]:
        if self.away:
            raise Unavailable("the cluster's head is away")
        return tuple(self._nodes.values())

    async def ensure_agent(self, ray_node_id: str) -> bool:
        node = self._nodes.get(ray_node_id)
        if node is None or not node.alive:
            raise Unavailable("that node is not there")
        if ray_node_id in self.agents:
            return False
        if ray_node_id in self.unjoined:
            raise AgentNotJoined("no identity")
        self.agents.add(ray_node_id)
        self.agents_started += 1
        return True

    async def enrol_agent(self, ray_node_id: str, enrolment: Enrolment) -> None:
        self.enrolled.append(enrolment)
        self.unjoined.discard(ray_node_id)

    async def stop_agent(self, ray_node_id: str) -> bool:
        there = ray_node_id in self.agents
        self.agents.discard(ray_node_id)
        return there

    def runner(self, ray_node_id: str) -> FakeRunner:
        return self._runners[ray_node_id]


class RecordedReports:
    """NodeReports that remembers; `failing` refuses so many calls first."""

    def __init__(self, failing: int = 0) -> None:
        self.seen: list[tuple[str, str]] = []
        self.dead: list[str] = []
        self.failing = failing

    def _maybe_fail(self) -> None:
        if self.failing:
            self.failing -= 1
            raise Unavailable("the database is away")

    async def node_seen(self, worker_id: str, ray_node_id: str, labels: Mapping[str, str]) -> None:
        self._maybe_fail()
        self.seen.append((worker_id, ray_node_id))

    async def node_dead(self, ray_node_id: str) -> None:
        self._maybe_fail()
        self.dead.append(ray_node_id)

    async def join_token(self, provider_id: UUID) -> str | None:
        return f"token of {provider_id}"
