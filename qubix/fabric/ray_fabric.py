"""The fabric port over Ray: every call that may block runs on a thread, so a slow head never stops an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qubix.agent.home import NotJoined
from qubix.agent.runner import Runner
from qubix.fabric.agent_actor import NAMESPACE, NodeAgentActor, agent_name
from qubix.fabric.ray_runner import START_TIMEOUT_S, RayRunner
from qubix.kernel.errors import Unavailable
from qubix.scheduling.fabric import AgentNotJoined, Enrolment, FabricNode

CALL_TIMEOUT_S = 10.0
AGENT_START_TIMEOUT_S = 60.0


class ClusterAway(Unavailable):
    """The Ray head does not answer."""

    code = "cluster_away"


class AgentDidNotStart(Unavailable):
    """The agent of a node could not be started."""

    code = "agent_did_not_start"


class RayFabric:
    """The cluster that this process's `ray.init` joined."""

    def __init__(self, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        """Args: start_timeout_s, how long an attempt may wait for a worker and its GPUs."""
        self._start_timeout_s = start_timeout_s
        self._agents: dict[str, asyncio.Lock] = {}

    async def nodes(self) -> tuple[FabricNode, ...]:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                found: list[dict[str, Any]] = await asyncio.to_thread(ray.nodes)
        except Exception as error:
            raise ClusterAway(f"Ray's head does not answer: {type(error).__name__}", next_step="It is tried again.") from error
        return tuple(
            FabricNode(n["NodeID"], n.get("Labels") or {}, bool(n["Alive"]), int(n.get("Resources", {}).get("GPU", 0))) for n in found
        )

    async def ensure_agent(self, ray_node_id: str) -> bool:
        async with self._agents.setdefault(ray_node_id, asyncio.Lock()):
            found = await asyncio.to_thread(_find_agent, ray_node_id)
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S if found is not None else AGENT_START_TIMEOUT_S):
                    # Asked of a found one too: whoever made it may have died before it started it.
                    actor = found if found is not None else await asyncio.to_thread(_create_agent, ray_node_id)
                    started: bool = await actor.start.remote()
            except Exception as error:
                if isinstance(getattr(error, "cause", None), NotJoined):
                    raise AgentNotJoined(f"{ray_node_id[:12]} has not joined", next_step="qubix provider join") from error
                if found is None:
                    with contextlib.suppress(Exception):
                        await asyncio.to_thread(_kill_agent, ray_node_id)
                raise AgentDidNotStart(
                    f"agent of {ray_node_id[:12]}: {type(error).__name__}: {error}"[:1000], next_step="See agent.log in the agent's home."
                ) from error
            return started

    async def enrol_agent(self, ray_node_id: str, enrolment: Enrolment) -> None:
        try:
            async with asyncio.timeout(AGENT_START_TIMEOUT_S):
                actor = await asyncio.to_thread(_create_agent, ray_node_id)
                await actor.enrol.remote(enrolment.server_url, enrolment.token)
        except Exception as error:
            cause = getattr(error, "cause", None) or error
            raise AgentDidNotStart(f"{ray_node_id[:12]} could not join: {cause}"[:1000], next_step="qubix provider join") from error

    async def stop_agent(self, ray_node_id: str) -> bool:
        actor = await asyncio.to_thread(_find_agent, ray_node_id)
        if actor is None:
            return False
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await actor.stop.remote()
        await asyncio.to_thread(_kill_agent, ray_node_id)
        return True

    def runner(self, ray_node_id: str) -> Runner:
        return RayRunner(ray_node_id, start_timeout_s=self._start_timeout_s)


def _find_agent(ray_node_id: str) -> Any | None:
    try:
        return ray.get_actor(agent_name(ray_node_id), namespace=NAMESPACE)
    except ValueError:
        return None


def _create_agent(ray_node_id: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(ray_node_id, soft=False)
    name = agent_name(ray_node_id)
    return NodeAgentActor.options(
        name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, scheduling_strategy=strategy
    ).remote()


def _kill_agent(ray_node_id: str) -> None:
    if (actor := _find_agent(ray_node_id)) is not None:
        ray.kill(actor)
