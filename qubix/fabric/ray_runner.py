"""Runs attempts as Ray tasks, hard on one node; the task is a thin runner of the sandbox.

The sandbox dies with the thread that forked it, so the task is a plain generator: Ray iterates it on the worker's main
thread. An attempt is stopped through its sandbox, from outside Ray; `ray.cancel(force=True)` is the last resort, and whether
the task then raises or returns tells nothing: a force-cancelled task that waited for a child returns normally with the
child's -9 (tried). Only an Ended event counts as an end; every other way out is RunnerDied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qubix.agent.home import lock_devices
from qubix.agent.runner import STOP_GRACE_S, RunnerDied, RunnerEvent, RunRequest, is_last
from qubix.kernel.errors import QubixError
from qubix.sandbox.events import Ended, Exit, SandboxEvent

START_TIMEOUT_S = 15.0
"""From asking Ray to the task's first event; a cold worker takes 1 to 2 s. Ray itself would wait for ever."""
FORCE_AFTER_S = 5.0
WARM_TIMEOUT_S = 10.0
_WARM_GPU = 0.001

log = logging.getLogger(__name__)


def run_attempt(request: RunRequest) -> Iterator[SandboxEvent]:
    """The body of the Ray task: lock the devices, run the sandbox, hand on its events."""
    from qubix.sandbox import run

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a sandbox started from another thread than the main one dies with that thread")
    try:
        locks = lock_devices(request.locks)
    except BlockingIOError:
        yield Ended(Exit.SANDBOX_FAILED, None, None, "a device is still held by an earlier attempt", 0, {})
        return
    try:
        # Not `yield from`: Ray resumes a generator by send(), which would reach iterators below that have none.
        for event in run.run(request.spec, inherit_fds=tuple(lock.fd for lock in locks)):  # noqa: UP028
            yield event
    except QubixError as error:
        yield Ended(Exit.SANDBOX_FAILED, None, None, error.message, 0, {})
    finally:
        for lock in locks:
            lock.close()


def warm_worker() -> str:
    """The body of the warming task: the worker that ran it has imported what an attempt needs, and stays."""
    from qubix.sandbox import run

    return run.__name__


def stop_sandbox(base: Path, attempt: UUID, grace_s: float) -> None:
    """End an attempt's processes; from any process of its node."""
    from qubix.sandbox import stop

    stop.stop(base, attempt, grace_s=grace_s)


_task: Any = ray.remote(num_cpus=0, max_retries=0)
_run_attempt = _task(run_attempt)
_warm_worker = _task(warm_worker)


@dataclass(slots=True)
class _Running:
    request: RunRequest
    stream: Any
    stopping: bool = False


class RayRunner:
    """The Runner over Ray, for the node with `ray_node_id`; `stop` must be called on that very node."""

    def __init__(
        self, ray_node_id: str, *, gpus: int = 0, resources_per_gpu: Mapping[str, float] = {}, start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """Args: gpus, how many the node has; resources_per_gpu, custom resources that an attempt takes per device; start_timeout_s, see there."""
        self._node, self._gpus, self._per_gpu, self._start_timeout_s = ray_node_id, gpus, dict(resources_per_gpu), start_timeout_s
        self._running: dict[UUID, _Running] = {}

    async def start(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        options = {
            "num_gpus": request.gpus,
            "resources": {name: amount * request.gpus for name, amount in self._per_gpu.items()} if request.gpus else {},
            "scheduling_strategy": NodeAffinitySchedulingStrategy(self._node, soft=False),
            "num_returns": "streaming",
        }
        stream = _run_attempt.options(**options).remote(request)
        self._running[request.attempt] = _Running(request, stream)
        last: RunnerEvent | None = None
        try:
            async for event in self._events(stream):
                last = event
                yield event
                if is_last(event):
                    return
        except Exception as error:
            # Ray has many exceptions for a lost task (worker crashed, node died, cancelled, unschedulable): all are one here.
            log.warning("attempt %s: %s", request.attempt, error)
            cause = getattr(error, "cause", None) or error
            yield RunnerDied(f"{type(cause).__name__}: {cause}".partition("\n")[0][:500])
        else:
            if last is None or not is_last(last):
                yield RunnerDied("the Ray task ended before its sandbox did")
        finally:
            self._running.pop(request.attempt, None)
            if not isinstance(last, Ended):
                # A task whose sandbox has ended is left to finish by itself: force would kill its worker, which is warm now.
                self._cancel(stream)

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
        log.warning("attempt %s did not end when its sandbox was stopped; cancelling its task by force", attempt)
        self._cancel(running.stream)

    async def warm(self) -> None:
        strategy = NodeAffinitySchedulingStrategy(self._node, soft=False)
        # Ray keeps workers with and without a GPU apart: the warming task asks for a crumb of one.
        reference = _warm_worker.options(num_gpus=_WARM_GPU if self._gpus else 0, scheduling_strategy=strategy).remote()
        try:
            async with asyncio.timeout(WARM_TIMEOUT_S):
                await reference
        except Exception as error:
            log.info("no warm worker: %s", type(error).__name__)
            with contextlib.suppress(Exception):
                ray.cancel(reference)

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
                yield RunnerDied(f"no worker or no free GPU on this node within {self._start_timeout_s:.0f} s")
                return
            patience = None
            yield event

    @staticmethod
    def _cancel(stream: Any) -> None:
        with contextlib.suppress(Exception):
            ray.cancel(stream, force=True)
