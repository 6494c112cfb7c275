"""The node agent as a detached Ray actor, pinned to its node.

It takes no arguments but the folder's name in its own node's environment: keys and addresses are read there, on the node.
Commands and reports never travel by Ray calls; the methods here only start it and ask whether it lives.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import ray

from qubix.agent.client import AgentClient
from qubix.agent.containment import SandboxContainment
from qubix.agent.devices import find_devices
from qubix.agent.home import AgentLock, Home
from qubix.fabric.node import AGENT_HOME_VARIABLE
from qubix.fabric.ray_runner import RayRunner

NAMESPACE = "qubix"
CLAIM_PATIENCE_S = 10.0
"""How long a new agent waits for the lock of a dying predecessor."""


def agent_name(ray_node_id: str) -> str:
    """The actor's name; one per Ray node."""
    return f"agent:{ray_node_id}"


class NodeAgent:
    """The actor's class."""

    def __init__(self) -> None:
        self._serving: asyncio.Task[None] | None = None
        self._client: AgentClient | None = None
        self._lock: AgentLock | None = None

    async def start(self) -> bool:
        """Begin to serve. Returns: False if it does already. Raises: AgentRunsAlready, NotJoined, KeyError without a home."""
        if self._serving is not None:
            return False
        home = Home(Path(os.environ[AGENT_HOME_VARIABLE]))
        logging.basicConfig(
            filename=home.folder / "agent.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
        )
        config = home.read_config()
        devices = find_devices(config.declared_gpus, config.worker_id)
        self._lock = await self._claim(home, machine_gpus=any(d.detected_by == "nvml" for d in devices.devices()))
        node_id = ray.get_runtime_context().get_node_id()
        gpus, per_gpu = _capacity(node_id)
        self._client = AgentClient(
            home,
            config,
            runner=RayRunner(node_id, gpus=gpus, resources_per_gpu=per_gpu),
            devices=devices,
            containment=SandboxContainment(home.sandboxes),
        )
        self._serving = asyncio.ensure_future(self._client.run())
        self._serving.add_done_callback(_die)
        return True

    async def ping(self) -> dict[str, Any]:
        """Whether it serves, and whether its session is open."""
        return {
            "pid": os.getpid(),
            "serving": self._serving is not None and not self._serving.done(),
            "online": bool(self._client and self._client.online),
        }

    async def stop(self) -> None:
        """End the session and all attempts of this node; the caller then kills the actor."""
        if self._serving is not None:
            self._serving.remove_done_callback(_die)
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    @staticmethod
    async def _claim(home: Home, *, machine_gpus: bool) -> AgentLock:
        deadline = asyncio.get_running_loop().time() + CLAIM_PATIENCE_S
        while True:
            try:
                return home.claim(machine_gpus=machine_gpus)
            except Exception:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.2)


def _die(serving: asyncio.Task[None]) -> None:
    """An agent that stopped serving is no use alive: the fabric daemon starts a new one where the actor is gone."""
    if not serving.cancelled():
        logging.getLogger(__name__).error("the agent ended", exc_info=serving.exception())
    os._exit(1)


def _capacity(ray_node_id: str) -> tuple[int, dict[str, float]]:
    """How many GPUs this Ray node has, and the custom resources that belong to each."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources: dict[str, float] = next((n["Resources"] for n in nodes if n["NodeID"] == ray_node_id), {})
    gpus = int(resources.get("GPU", 0))
    return gpus, ({"vram_gb": resources["vram_gb"] / gpus} if gpus and "vram_gb" in resources else {})


_actor: Any = ray.remote
NodeAgentActor = _actor(num_cpus=0, max_restarts=0, max_concurrency=100)(NodeAgent)
