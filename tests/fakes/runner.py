"""A runner in memory: attempts that do what their kind says, without a process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

from qubix.agent.runner import STOP_GRACE_S, RunnerDied, RunnerEvent, RunRequest
from qubix.sandbox.events import ArtefactReady, CheckpointReady, Ended, Exit, LogText, ProgressReport, Started
from qubix.sandbox.spec import Program

ELSEWHERE = Path("/nowhere")


def fake_program(kind: str) -> Program:
    """Kinds: `hello` prints and ends, `sleep` prints and waits to be stopped, `train` makes a checkpoint and an artefact, `triplets`
    makes three artefacts of the same bytes, `fail` exits 3."""
    return Program(ELSEWHERE / kind, "main.py", ELSEWHERE)


class FakeRunner:
    """Runs attempts on a node with `gpus` devices; each GPU is a slot, as Ray counts them."""

    def __init__(self, gpus: int = 1, *, start_timeout_s: float = 0.2, script: Callable[[RunRequest], str] | None = None) -> None:
        self.gpus, self.start_timeout_s = gpus, start_timeout_s
        self.script = script or (lambda request: request.spec.program.folder.name)
        self.started: list[UUID] = []
        self.warmed = 0
        self._free = asyncio.Condition()
        self._stops: dict[UUID, asyncio.Event] = {}
        self._deaths: dict[UUID, asyncio.Event] = {}

    async def start(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        self._stops[request.attempt] = asyncio.Event()
        self._deaths[request.attempt] = asyncio.Event()
        try:
            async with asyncio.timeout(self.start_timeout_s), self._free:
                await self._free.wait_for(lambda: self.gpus >= request.gpus)
                self.gpus -= request.gpus
        except TimeoutError:
            yield RunnerDied("no free GPU")
            return
        self.started.append(request.attempt)
        try:
            async for event in self._play(request):
                yield event
        finally:
            self._stops.pop(request.attempt, None)
            async with self._free:
                self.gpus += request.gpus
                self._free.notify_all()

    async def stop(self, attempt: UUID, grace_s: float = STOP_GRACE_S) -> None:
        if (stop := self._stops.get(attempt)) is not None:
            stop.set()

    async def warm(self) -> None:
        self.warmed += 1

    def busy(self) -> bool:
        """Whether an attempt runs."""
        return bool(self._stops)

    def kill(self, attempt: UUID) -> None:
        """The process that runs the attempt dies."""
        self._deaths[attempt].set()

    async def _play(self, request: RunRequest) -> AsyncIterator[RunnerEvent]:
        kind = self.script(request)
        yield Started(4711, "rlimits", 1.0)
        yield LogText("out", 0, "go\n")
        if kind == "sleep":
            stop = asyncio.ensure_future(self._stops[request.attempt].wait())
            death = asyncio.ensure_future(self._deaths[request.attempt].wait())
            await asyncio.wait({stop, death}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            death.cancel()
            if self._deaths[request.attempt].is_set():
                yield RunnerDied("killed")
            else:
                yield Ended(Exit.STOPPED, None, None, "stopped on request", 5, {"out": 3})
            return
        if kind == "train":
            yield ProgressReport(50.0, "epoch 1")
            path, digest = _blob(request.spec.spool, b"weights")
            yield CheckpointReady(1, path, digest, 7, 50.0, 10)
            path, digest = _blob(request.spec.spool, b"model")
            yield ArtefactReady("model.pt", path, digest, 5)
        if kind == "triplets":
            for name in ("a.pt", "b.pt", "c.pt"):
                path, digest = _blob(request.spec.spool, b"model")
                yield ArtefactReady(name, path.rename(path.with_name(f"raw-{name}")), digest, 5)
        yield LogText("out", 3, "done\n")
        yield Ended(Exit.EXITED, 3 if kind == "fail" else 0, None, "", 20, {"out": 8})


def _blob(folder: Path, content: bytes) -> tuple[Path, str]:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"raw-{digest[:8]}"
    path.write_bytes(content)
    return path, digest
