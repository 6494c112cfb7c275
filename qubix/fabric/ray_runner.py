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
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qubix.agent.fork_server import ForkServer
from qubix.agent.runner import STOP_GRACE_S, RunnerDied, RunnerEvent, RunRequest
from qubix.sandbox.events import Ended, SandboxEvent
from qubix.sandbox.processes import Process

START_TIMEOUT_S = 15.0
"""From asking Ray for the devices until they are given, and from there to the first event. Ray itself would wait for ever."""
HOST_START_TIMEOUT_S = 30.0
"""A new actor is a new process, on a machine that may be busy."""
FORCE_AFTER_S = 5.0
KILL_TIMEOUT_S = 5.0
"""For the answer of an actor that was asked to kill an attempt."""
LAST_WORDS_S = 1.0
"""For the events of an attempt that is given up which are on their way already; among them may be its end."""
STOPS_AT_ONCE = 32
"""Threads on which sandboxes are stopped, each for as long as its job takes to end; a stop beyond them waits for one."""
DEATH_TIMEOUT_S = 1.0
"""For the end of an actor that gives none."""
ATTEMPTS_MAX = 1000
"""Tasks of the actor at once: more than a node has devices."""
_NODE_LABEL = "ray.io/node-id"

log = logging.getLogger(__name__)


class AttemptHost:
    """The actor's class."""

    def __init__(self) -> None:
        self._forks = ForkServer()

    async def start(self) -> int:
        """Be ready to fork. Returns: this process."""
        self._forks.start()
        return os.getpid()

    async def run_attempt(self, request: RunRequest) -> AsyncIterator[SandboxEvent]:
        """One attempt; its events in order."""
        async for event in self._forks.run(request):
            yield event

    async def kill(self, attempt: UUID) -> None:
        """End the process of an attempt. Raises: TimeoutError, where it does not."""
        await self._forks.kill(attempt)


def stop_sandbox(base: Path, attempt: UUID, grace_s: float) -> None:
    """End an attempt's processes; from any process of its node."""
    from qubix.sandbox import stop

    stop.stop(base, attempt, grace_s=grace_s)


def bury_sandbox(base: Path, attempt: UUID) -> None:
    """Remove what is left of an attempt that is over."""
    from qubix.sandbox import stop

    stop.bury(base, attempt, gone=True)


_actor: Any = ray.remote
_AttemptHost = _actor(num_cpus=0, max_restarts=0, max_concurrency=ATTEMPTS_MAX)(AttemptHost)


class NotInTime(Exception):
    """Ray did not give the devices, or no sandbox started."""


@dataclass(frozen=True)
class Host:
    """A node's actor, and its process, None if that could not be looked at."""

    actor: Any
    process: Process | None

    async def kill(self, attempt: UUID) -> bool:
        """End an attempt. Returns: whether it is known that none of its processes lives or can start any more."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await self.actor.kill.remote(attempt)
                return True
        with contextlib.suppress(Exception):
            return self.process is not None and await asyncio.to_thread(self.process.wait, DEATH_TIMEOUT_S)
        return False


@dataclass(slots=True)
class _Running:
    request: RunRequest
    host: Host | None = None
    stopping: bool = False
    lost: bool = False
    """It was given up, with its host: no event of it is waited for any more."""
    waiting: asyncio.Timeout | None = None
    marking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a stop is written to the disk."""

    def give_up(self) -> None:
        """Let whoever waits for its next event wait no longer."""
        self.lost = True
        if self.waiting is not None:
            with contextlib.suppress(RuntimeError):  # nobody waits at the moment
                self.waiting.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_S)


class RayRunner:
    """The Runner over Ray, for the node with `ray_node_id`; `stop` must be called on that very node."""

    def __init__(self, ray_node_id: str, *, resources_per_gpu: Mapping[str, float] = {}, start_timeout_s: float = START_TIMEOUT_S) -> None:
        """Args: resources_per_gpu, custom resources that an attempt takes per device; start_timeout_s, see there."""
        self._node, self._per_gpu, self._start_timeout_s = ray_node_id, dict(resources_per_gpu), start_timeout_s
        self._running: dict[UUID, _Running] = {}
        self._host: Host | None = None
        self._hosting: asyncio.Task[Host] | None = None
        self._kills: set[asyncio.Future[bool]] = set()
        self._groups = ThreadPoolExecutor(4, "placement-groups")
        self._stops = ThreadPoolExecutor(STOPS_AT_ONCE, "stops")

    async def start(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        running = self._running[request.attempt] = _Running(request)
        ended = False
        try:
            async with self._devices(request.gpus):
                host = await self._hosted()
                if running.stopping:  # meanwhile; the mark that would tell its sandbox may not have been written
                    why = "stopped before it started"
                else:
                    running.host = host
                    stream = host.actor.run_attempt.options(num_returns="streaming").remote(request)
                    async for event in self._events(stream, running):
                        if ended := isinstance(event, Ended):
                            self._running.pop(request.attempt, None)
                            await self._unmark(running, stream)
                        yield event
                        if ended:
                            return
                    why = "the attempt's process ended before its sandbox did"
        except NotInTime as error:
            why = str(error)
        except Exception as error:
            # Ray has many exceptions for a lost task (worker crashed, node died, cancelled, unschedulable): all are one here.
            log.warning("attempt %s: %s", request.attempt, error)
            cause = getattr(error, "cause", None) or error
            why = f"{type(cause).__name__}: {cause}".partition("\n")[0][:500]
        finally:
            self._running.pop(request.attempt, None)
            if not ended:
                killing = asyncio.ensure_future(self._killed(running))
                self._kills.add(killing)
                killing.add_done_callback(self._kills.discard)
        yield RunnerDied(why, gone=await asyncio.shield(killing))

    async def stop(self, attempt: UUID, grace_s: float = STOP_GRACE_S) -> None:
        running = self._running.get(attempt)
        if running is None or running.stopping:
            return
        running.stopping = True
        with contextlib.suppress(Exception):
            async with running.marking:
                await self._apart(self._stops, stop_sandbox, running.request.spec.base, attempt, grace_s)
        if await self._over(attempt):
            return
        log.warning("attempt %s did not end when its sandbox was stopped; killing its process", attempt)
        if not await self._killed(running) or not await self._over(attempt):
            running.give_up()

    async def _over(self, attempt: UUID) -> bool:
        """Whether an attempt ends within FORCE_AFTER_S."""
        for _ in range(int(FORCE_AFTER_S / 0.05)):
            if attempt not in self._running:
                return True
            await asyncio.sleep(0.05)
        return False

    @staticmethod
    async def _killed(running: _Running) -> bool:
        """Kill an attempt, once a stop of it is written. Returns: whether it is known that nothing of it lives or can start any more."""
        async with running.marking:
            return running.host is None or await running.host.kill(running.request.attempt)

    async def _unmark(self, running: _Running, stream: Any) -> None:
        """Of an attempt that ended while it was being stopped: remove the mark of a stop that came too late to be seen."""
        if running.stopping:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    async for _ in stream:  # until its process has removed what it made
                        pass
            with contextlib.suppress(Exception):
                async with running.marking:
                    await self._apart(self._stops, bury_sandbox, running.request.spec.base, running.request.attempt)

    async def warm(self) -> None:
        try:
            await self._hosted()
        except Exception as error:
            log.info("no host for attempts: %s", type(error).__name__)

    async def _hosted(self) -> Host:
        """The node's actor, alive a moment ago; started where there is none, once for all who ask. Raises: what Ray raises; TimeoutError."""
        if self._hosting is None or self._hosting.done():
            self._hosting = asyncio.create_task(self._find_host())
        return await asyncio.shield(self._hosting)

    async def _find_host(self) -> Host:
        if self._host is not None:
            try:
                await self._ready(self._host.actor)
            except Exception as error:
                log.warning("the host of attempts is gone: %s", type(error).__name__)
                self._host = None
        if self._host is None:
            actor = _AttemptHost.options(scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=False)).remote()
            self._host = Host(actor, Process.of(await self._ready(actor)))
        return self._host

    @staticmethod
    async def _ready(actor: Any) -> int:
        async with asyncio.timeout(HOST_START_TIMEOUT_S):
            return int(await actor.start.remote())

    @contextlib.asynccontextmanager
    async def _devices(self, count: int) -> AsyncIterator[None]:
        """Hold `count` GPUs of the node, with what belongs to them: all or none. Raises: NotInTime."""
        if not count:
            yield
            return
        bundle = {"GPU": float(count), **{name: amount * count for name, amount in self._per_gpu.items()}}
        group = await self._apart(self._groups, placement_group, [bundle], "STRICT_PACK", bundle_label_selector=[{_NODE_LABEL: self._node}])
        try:
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    await group.ready()
            except TimeoutError:
                raise NotInTime(f"no free GPU on this node within {self._start_timeout_s:.0f} s") from None
            yield
        finally:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._apart(self._groups, remove_placement_group, group))

    @staticmethod
    def _apart(threads: ThreadPoolExecutor, call: Any, *arguments: Any, **named: Any) -> Any:
        """A call that blocks, on threads of this runner's own."""
        return asyncio.get_running_loop().run_in_executor(threads, partial(call, *arguments, **named))

    async def _events(self, stream: Any, running: _Running) -> AsyncIterator[SandboxEvent]:
        patience: float | None = self._start_timeout_s
        while True:
            try:
                async with asyncio.timeout(LAST_WORDS_S if running.lost else patience) as running.waiting:
                    reference = await anext(stream)
                    event = await reference
            except StopAsyncIteration:
                return
            except TimeoutError:
                if running.lost:
                    raise NotInTime("it was stopped, and the process that hosts it did not answer") from None
                raise NotInTime(f"no sandbox started on this node within {self._start_timeout_s:.0f} s") from None
            patience = None
            yield event
