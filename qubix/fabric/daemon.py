"""The fabric daemon: a Ray driver that watches the cluster, keeps one agent on every provider node, and reports deaths.

It knows nodes and nothing of money; its database role may call two functions. It outlives restarts of the Ray head.

    QUBIX_RAY_ADDRESS=… QUBIX_DATABASE_URL_FILE=… RAY_AUTH_TOKEN_PATH=… python -m qubix.fabric.daemon
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from uuid import UUID

from qubix import observability
from qubix.exporter import Loops, exported, make_registry
from qubix.fabric import labels
from qubix.fabric.head import await_head
from qubix.fabric.reports import SqlNodeReports
from qubix.kernel.errors import Invalid, QubixError, Unavailable
from qubix.kernel.failpoints import reach
from qubix.postgres.engine import make_engine, read_url_file
from qubix.postgres.measures import PoolCollector
from qubix.scheduling.fabric import AgentNotJoined, Enrolment, Fabric, FabricNode, NodeReports, NodeWatch
from qubix.settings import Settings

LOOK_S = 0.5
AGENT_CHECK_S = 2.0
RETRY_S_MIN, RETRY_S_MAX = 0.5, 8.0

log = observability.logger("fabric")


class Daemon:
    """The loop, over a fabric and a place to report to."""

    def __init__(
        self,
        fabric: Fabric,
        reports: NodeReports,
        *,
        server_url: str = "",
        look_s: float = LOOK_S,
        agent_check_s: float = AGENT_CHECK_S,
        loops: Loops | None = None,
    ) -> None:
        """Args: server_url, where machines that came by a plain `ray start` join, empty: they do not; look_s, seconds between looks at
        the cluster; agent_check_s, between checks that each node's agent lives; loops, where each look is measured.
        """
        self._fabric, self._reports, self._server_url = fabric, reports, server_url
        self._look_s, self._agent_check_s = look_s, agent_check_s
        self._loops = loops or Loops(make_registry())
        self._watch = NodeWatch()
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled. Raises: Unavailable when the cluster's head is away; call again when it is back."""
        try:
            while True:
                with self._loops.step("look"):
                    await self.step()
                await asyncio.sleep(self._look_s)
        finally:
            for keeper in self._keepers.values():
                keeper.cancel()
            await asyncio.gather(*self._keepers.values(), return_exceptions=True)
            self._keepers.clear()

    async def step(self) -> None:
        """One look: tell what changed, and see that every provider node has somebody who keeps its agent alive."""
        nodes = await self._fabric.nodes()
        changes = self._watch.compare(n for n in nodes if not n.alive or labels.parse(n.labels) is not None)
        for ray_node_id in changes.dead:
            reach("fabric.death_seen")
            log.info("node is dead", node=ray_node_id)
            await self._tell(self._reports.node_dead(ray_node_id), lambda i=ray_node_id: self._watch.retry_dead(i))  # type: ignore[misc]
        for node in changes.seen:
            known = labels.parse(node.labels)
            if known is not None:
                log.info("node is alive", node=node.ray_node_id, worker=known.worker_id)
                seen = self._reports.node_seen(known.worker_id, node.ray_node_id, node.labels)
                await self._tell(seen, lambda i=node.ray_node_id: self._watch.retry_seen(i))  # type: ignore[misc]
        self._keep_agents([n for n in nodes if n.alive and labels.parse(n.labels) is not None])

    def _keep_agents(self, nodes: list[FabricNode]) -> None:
        wanted = {n.ray_node_id for n in nodes}
        for ray_node_id in [i for i in self._keepers if i not in wanted]:
            self._keepers.pop(ray_node_id).cancel()
        for node in nodes:
            keeper = self._keepers.get(node.ray_node_id)
            if keeper is None or keeper.done():
                self._keepers[node.ray_node_id] = asyncio.create_task(self._keep_agent(node))

    async def _keep_agent(self, node: FabricNode) -> None:
        """One task per node: a machine on which starting takes long delays no other."""
        ray_node_id, pause_s = node.ray_node_id, self._agent_check_s
        while True:
            try:
                if await self._fabric.ensure_agent(ray_node_id):
                    reach("fabric.agent_started")
                    log.info("started an agent", node=ray_node_id)
                pause_s = self._agent_check_s
            except AgentNotJoined:
                pause_s = 0.0 if await self._enrol(node) else min(max(1.0, pause_s) * 2, 30.0)
            except QubixError as error:
                log.warning("no agent", node=ray_node_id, reason=error.message)
                pause_s = min(max(1.0, pause_s) * 2, 30.0)
            await asyncio.sleep(pause_s)

    async def _enrol(self, node: FabricNode) -> bool:
        """Let a machine that came by a plain `ray start` join, in the name of the provider whose label it carries."""
        known = labels.parse(node.labels)
        try:
            token = await self._reports.join_token(UUID(known.provider)) if known is not None and self._server_url else None
            if token is None:
                log.warning("a node has not joined and cannot", node=node.ray_node_id)
                return False
            await self._fabric.enrol_agent(node.ray_node_id, Enrolment(self._server_url, token))
        except Exception as error:
            log.warning("a node could not join", node=node.ray_node_id, reason=f"{type(error).__name__}: {error}")
            return False
        log.info("a node joined by its labels", node=node.ray_node_id)
        # What node_seen said before the node existed found no row.
        self._watch.retry_seen(node.ray_node_id)
        return True

    @staticmethod
    async def _tell(report: Awaitable[None], again: Callable[[], None]) -> None:
        try:
            await report
        except Exception as error:
            # The database may be away for a moment; the same news is told again at the next look.
            log.warning("report not delivered", reason=f"{type(error).__name__}: {error}")
            again()


async def serve(address: str, reports: NodeReports, *, server_url: str = "", loops: Loops | None = None) -> None:
    """Run the daemon over Ray until cancelled, joining the cluster again whenever its head comes back.

    Args: address, `host:port` of the head; the cluster's token is found through RAY_AUTH_TOKEN_PATH; server_url and loops, see Daemon.
    """
    pause_s = RETRY_S_MIN
    while True:
        try:
            await asyncio.to_thread(_join, address)
            from qubix.fabric.ray_fabric import RayFabric

            pause_s = RETRY_S_MIN
            await Daemon(RayFabric(), reports, server_url=server_url, loops=loops).run()
        except Unavailable as error:
            log.warning("the cluster is away", reason=error.message)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(_leave)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_S_MAX)


def _join(address: str) -> None:
    import ray

    from qubix.fabric.agent_actor import NAMESPACE

    await_head(address)
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:
        raise Unavailable(
            f"cannot join the Ray cluster at {address}: {type(error).__name__}: {error}"[:500], next_step="It is tried again."
        ) from error


def _leave() -> None:
    import ray

    ray.shutdown()


async def _main(settings: Settings) -> None:
    if settings.database_url_file is None or not settings.ray_address:
        raise Invalid(
            "no Ray head or no database is configured",
            next_step="set QUBIX_RAY_ADDRESS and QUBIX_DATABASE_URL_FILE, or start with `qubix up`",
        )
    engine = make_engine(read_url_file(settings.database_url_file), pool_size=2)
    registry = make_registry()
    registry.register(PoolCollector(engine))
    reports = SqlNodeReports(engine)
    serving = asyncio.ensure_future(serve(settings.ray_address, reports, server_url=settings.public_url, loops=Loops(registry)))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with exported(settings, registry, "fabric"), contextlib.suppress(asyncio.CancelledError):
        await serving
    await engine.dispose()


def main() -> None:
    """Entry point."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    settings = Settings()
    observability.configure(level=settings.log_level)
    asyncio.run(_main(settings))


if __name__ == "__main__":
    main()
