"""Runs attempts as tasks of one actor on the node; a placement group counts their devices, a fork server gives each a process.

Ray starts a process for every plain task that runs at the same time: a second of CPU each, and one after the other on a node
with one CPU, so fifty attempts would wait for a minute. Here each attempt is a task of the node's AttemptHost, which forks a
process for it (qubix.agent.fork_server) on whose main thread its sandbox starts. Its devices and VRAM are a placement group on
this very node: Ray counts them without a process. An attempt is stopped through its sandbox, from outside Ray; to kill its
process is the last resort. Only an Ended event counts as an end; every other way out is RunnerDied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qubix.agent.fork_server import ForkServer
from qubix.agent.runner import STOP_GRACE_S, RunnerDied, RunnerEvent, RunRequest, is_last
from qubix.sandbox.events import Ended, SandboxEvent

START_TIMEOUT_S = 15.0
"""From asking Ray for the devices until they are given, and from there to the first event. Ray itself would wait for ever."""
HOST_START_TIMEOUT_S = 30.0
"""A new actor is a new process, on a machine that may be busy."""
FORCE_AFTER_S = 5.0
ATTEMPTS_MAX = 1000
"""Tasks of the actor at once: more than a node has devices."""
_NODE_LABEL = "ray.io/node-id"

log = logging.getLogger(__name__)


class AttemptHost:
    """The actor's class."""

    def __init__(self) -> None:
        self._forks = ForkServer()

    async def start(self) -> None:
        """Be ready to fork."""
        self._forks.start()

    async def run_attempt(self, request: RunRequest) -> AsyncIterator[SandboxEvent]:
        """One attempt; its events in order."""
        async for event in self._forks.run(request):
            yield event

    async def kill(self, attempt: UUID) -> None:
        """SIGKILL to the process of an attempt."""
        self._forks.kill(attempt)


def stop_sandbox(base: Path, attempt: UUID, grace_s: float) -> None:
    """End an attempt's processes; from any process of its node."""
    from qubix.sandbox import stop

    stop.stop(base, attempt, grace_s=grace_s)


_actor: Any = ray.remote
_AttemptHost = _actor(num_cpus=0, max_restarts=0, max_concurrency=ATTEMPTS_MAX)(AttemptHost)


class NoFreeDevice(Exception):
    """Ray did not give the devices in time."""


@dataclass(slots=True)
class _Running:
    request: RunRequest
    host: Any = None
    stopping: bool = False


class RayRunner:
    """The Runner over Ray, for the node with `ray_node_id`; `stop` must be called on that very node."""

    def __init__(self, ray_node_id: str, *, resources_per_gpu: Mapping[str, float] = {}, start_timeout_s: float = START_TIMEOUT_S) -> None:
        """Args: resources_per_gpu, custom resources that an attempt takes per device; start_timeout_s, see there."""
        self._node, self._per_gpu, self._start_timeout_s = ray_node_id, dict(resources_per_gpu), start_timeout_s
        self._running: dict[UUID, _Running] = {}
        self._host: Any = None
        self._hosting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(4, "placement-groups")

    async def start(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        running = self._running[request.attempt] = _Running(request)
        last: RunnerEvent | None = None
        try:
            async with self._devices(request.gpus):
                running.host = await self._hosted()
                if running.stopping:  # meanwhile; the mark that would tell its sandbox may not have been written
                    yield RunnerDied("stopped before it started")
                    return
                stream = running.host.run_attempt.options(num_returns="streaming").remote(request)
                async for event in self._events(stream):
                    last = event
                    yield event
                    if is_last(event):
                        return
        except NoFreeDevice as error:
            yield RunnerDied(str(error))
        except Exception as error:
            # Ray has many exceptions for a lost task (worker crashed, node died, cancelled, unschedulable): all are one here.
            log.warning("attempt %s: %s", request.attempt, error)
            cause = getattr(error, "cause", None) or error
            yield RunnerDied(f"{type(cause).__name__}: {cause}".partition("\n")[0][:500])
        else:
            if last is None or not is_last(last):
                yield RunnerDied("the attempt's process ended before its sandbox did")
        finally:
            self._running.pop(request.attempt, None)
            if not isinstance(last, Ended):
                self._kill(running)

    async def stop(self, attempt: UUID, grace_s: float = STOP_GRACE_S) -> None:
        running = self._running.get(attempt)
        if running is None or running.stopping:
            return
        running.stopping = True
        with contextlib.suppress(Exception):
            await asyncio.to_thread(stop_sandbox, running.request.spec.base, attempt, grace_s)
        for _ in range(int(FORCE_AFTER_S / 0.05)):
            if attempt not in self._running:
                return
            await asyncio.sleep(0.05)
        log.warning("attempt %s did not end when its sandbox was stopped; killing its process", attempt)
        self._kill(running)

    async def warm(self) -> None:
        try:
            await self._hosted()
        except Exception as error:
            log.info("no host for attempts: %s", type(error).__name__)

    async def _hosted(self) -> Any:
        """The node's actor, alive a moment ago; started where there is none. Raises: what Ray raises; TimeoutError."""
        async with self._hosting:
            if self._host is not None:
                try:
                    await self._ready(self._host)
                except Exception as error:
                    log.warning("the host of attempts is gone: %s", type(error).__name__)
                    self._host = None
            if self._host is None:
                host = _AttemptHost.options(scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=False)).remote()
                await self._ready(host)
                self._host = host
            return self._host

    @staticmethod
    async def _ready(host: Any) -> None:
        async with asyncio.timeout(HOST_START_TIMEOUT_S):
            await host.start.remote()

    @contextlib.asynccontextmanager
    async def _devices(self, count: int) -> AsyncIterator[None]:
        """Hold `count` GPUs of the node, with what belongs to them: all or none. Raises: NoFreeDevice."""
        if not count:
            yield
            return
        bundle = {"GPU": float(count), **{name: amount * count for name, amount in self._per_gpu.items()}}
        group = await self._apart(placement_group, [bundle], "STRICT_PACK", bundle_label_selector=[{_NODE_LABEL: self._node}])
        try:
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    await group.ready()
            except TimeoutError:
                raise NoFreeDevice(f"no free GPU on this node within {self._start_timeout_s:.0f} s") from None
            yield
        finally:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._apart(remove_placement_group, group))

    def _apart(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """A call that blocks until the GCS has answered, on a thread of this runner's own."""
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments, **named))

    async def _events(self, stream: Any) -> AsyncIterator[RunnerEvent]:
        patience: float | None = self._start_timeout_s
        while True:
            try:
                async with asyncio.timeout(patience):
                    reference = await anext(stream)
                    event = await reference
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield RunnerDied(f"no sandbox started on this node within {self._start_timeout_s:.0f} s")
                return
            patience = None
            yield event

    @staticmethod
    def _kill(running: _Running) -> None:
        if running.host is not None:
            with contextlib.suppress(Exception):
                running.host.kill.remote(running.request.attempt)
