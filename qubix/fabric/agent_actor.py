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
from qubix.agent.home import AgentLock, Home, NotJoined
from qubix.agent.join import join
from qubix.fabric import labels
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
        self._starting = asyncio.Lock()

    async def start(self) -> bool:
        """Begin to serve. Returns: False if it does already. Raises: AgentRunsAlready; NotJoined."""
        async with self._starting:
            if self._serving is not None:
                return False
            home = _home()
            config = home.read_config()
            log_file = home.folder / "agent.log"
            logging.basicConfig(filename=log_file, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
            devices = find_devices(config.declared_gpus, config.worker_id)
            self._lock = await self._claim(home, machine_gpus=any(d.detected_by == "nvml" for d in devices.devices()))
            node_id = ray.get_runtime_context().get_node_id()
            _, per_gpu = _capacity(node_id)
            runner = RayRunner(node_id, resources_per_gpu=per_gpu)
            self._client = AgentClient(home, config, runner=runner, devices=devices, containment=SandboxContainment(home.sandboxes))
            self._serving = asyncio.ensure_future(self._client.run())
            self._serving.add_done_callback(_die)
            return True

    async def enrol(self, server_url: str, token: str) -> None:
        """Join by what this node's labels say: for a machine that came by a plain `ray start`. Raises: what join raises."""
        node_id = ray.get_runtime_context().get_node_id()
        known = labels.parse(_node_labels())
        if known is None:
            raise NotJoined("this node carries no provider's labels", next_step="See docs/provider.md for the labels.")
        gpus, _ = _capacity(node_id)
        declared = () if find_devices((), known.worker_id).devices() or not known.model else (f"{known.model}:{known.vram_gb}GB:{gpus}",)
        await asyncio.to_thread(
            join,
            _home(),
            server_url,
            token,
            worker_id=known.worker_id,
            name=known.worker_id,
            region=known.region,
            price_per_hour=labels.PRICE_PER_HOUR[known.price_class],
            declared_gpus=declared,
        )

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


def _node_labels() -> dict[str, str]:
    return {key: str(value) for key, value in ray.get_runtime_context().get_node_labels().items()}


def _home() -> Home:
    """The home that the node's environment names; for a plain `ray start` without one, the worker id's own folder."""
    named = os.environ.get(AGENT_HOME_VARIABLE)
    if named is None:
        worker_id = _node_labels().get(labels.WORKER_ID, "agent")
        named = str(Path.home() / ".local" / "share" / "qubix" / "agents" / worker_id)
    return Home(Path(named))


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
