"""One attempt on its node, from the grant until its devices are free: fetch, run, report. Reports go to the spool."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from qubix.agent.devices import DeviceSource
from qubix.agent.home import Home
from qubix.agent.protocol import (
    LOG_CHUNK_MAX_BYTES,
    Artefact,
    Checkpoint,
    DesiredAttempt,
    Durable,
    Exit,
    Finished,
    Progress,
    Running,
    Stream,
)
from qubix.agent.runner import Runner, RunnerDied, RunnerEvent, RunRequest, is_last
from qubix.agent.spool import NO_SESSION, Journal, Spool
from qubix.agent.transfer import AttemptOver, Transfer, TransferFailed, TransferRefused
from qubix.kernel.failpoints import reach
from qubix.sandbox.events import ArtefactReady, CheckpointReady, Ended, LogText, ProgressReport, RestoreFailed, Started
from qubix.sandbox.spec import InputMount, Limits, Program, SandboxSpec

FETCH_PATIENCE_S = 60.0
LIMIT_BACKSTOP_S = 5.0
"""The sandbox itself ends at its limit; this much later the agent does it instead."""
RUNNER_DEATH_GRACE_S = 3.0
"""A dead runner may be the first sign of a dying node: the agent waits this long, and so does not report a lost node as a failed attempt."""
EVENTS_QUEUED_MAX = 256
CHECKPOINTS_LISTED_MAX = 1000
"""Of more, `finished` lists the newest: it has to fit into a frame, whatever the job did, or the end could never be told."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttemptTools:
    """What all attempts of a node share."""

    home: Home
    runner: Runner
    spool: Spool
    transfer: Transfer
    devices: DeviceSource
    locate: Callable[[str], Program]
    """The installed program of a job kind."""
    bury: Callable[[UUID, bool], None]
    """Remove what a dead runner left of an attempt; blocks. The flag: RunnerDied.gone."""
    wake: Callable[[], None]
    """Something durable is spooled."""
    emit: Callable[[Progress], None]
    """Something volatile is to be sent if a session is open."""
    monotonic: Callable[[], float] = time.monotonic
    death_grace_s: float = RUNNER_DEATH_GRACE_S


@dataclass
class AttemptRun:
    """One started attempt."""

    tools: AttemptTools
    attempt: DesiredAttempt
    limit_ms: int
    _stopping: str | None = None
    _over_limit: bool = False
    _backstop: asyncio.TimerHandle | None = None
    _silent: bool = False
    _restore_failed: bool = False
    _started_at: float | None = None
    _runner_asked: bool = False
    _fetching: asyncio.Task[SandboxSpec] | None = None

    async def run(self) -> None:
        """Do all of it. Returns when the attempt's last process is gone and its devices are free."""
        journal = self.tools.spool.open(self.attempt.id, self.attempt.fence)
        try:
            await self._run(journal)
        except Exception as error:
            log.exception("attempt %s", self.attempt.id)
            for act in (self._put_away, partial(self._fail, journal, error)):  # each, though the other may fail: the disk may be full
                try:
                    await act()
                except Exception:
                    log.exception("attempt %s", self.attempt.id)
        shutil.rmtree(self.tools.home.work / str(self.attempt.id), ignore_errors=True)
        pause_s = 0.005
        while not all(map(self.tools.home.device_free, self.attempt.devices)):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    async def _put_away(self) -> None:
        """End what runs, and remove what is left of it."""
        await self.tools.runner.stop(self.attempt.id)
        if self._runner_asked:
            # What has started does not start again: no mark against it needs to stay.
            await asyncio.to_thread(self.tools.bury, self.attempt.id, self._started_at is not None)

    async def _fail(self, journal: Journal, error: Exception) -> None:
        """Say its end. If not even that can be written, it is named alive no more, so its lease runs out, and says it."""
        self._finish(journal, Exit.SANDBOX_FAILED, detail=f"{type(error).__name__}: {error}")

    async def stop(self, reason: str) -> None:
        """End it; `run` then reports what it was (unless silenced) and returns."""
        self._stopping = self._stopping or reason
        if self._fetching is not None:
            self._fetching.cancel()
        if self._runner_asked:
            await self.tools.runner.stop(self.attempt.id)

    def silence(self) -> None:
        """The platform has no use for it any more: report nothing further."""
        self._silent = True

    # -- before -------------------------------------------------------------------------------------------------------

    async def _run(self, journal: Journal) -> None:
        self._fetching = asyncio.ensure_future(self._prepare(journal))
        try:
            spec = await self._fetching
        except (TransferFailed, TransferRefused, AttemptOver) as error:
            return self._finish(journal, Exit.INPUT_FAILED, detail=error.message)
        except asyncio.CancelledError:
            if self._stopping is None:
                raise
            return self._finish(journal, Exit.STOPPED, detail=self._stopping)
        finally:
            self._fetching = None
        if self._stopping is not None:
            return self._finish(journal, Exit.STOPPED, detail=self._stopping)
        home = self.tools.home
        request = RunRequest(spec, tuple((uuid, home.lock_path(uuid)) for uuid in self.attempt.devices))
        reach("agent.prepared")
        self._runner_asked = True
        self._watch_limit()
        try:
            async for event in _merged(self.tools.runner.start(request)):
                await self._report(journal, event)
        finally:
            if self._backstop is not None:
                self._backstop.cancel()
        return None

    async def _prepare(self, journal: Journal) -> SandboxSpec:
        wanted, home = self.attempt.spec, self.tools.home
        folder = home.work_folder(self.attempt.id)
        inputs = []
        for number, entry in enumerate(wanted.inputs):
            target = folder / f"input-{number}"
            await self._patiently(
                partial(self.tools.transfer.get_input, self.attempt.id, self.attempt.fence, entry.name, entry.sha256, entry.size, target)
            )
            inputs.append(InputMount(entry.name, target))
        return SandboxSpec(
            attempt=self.attempt.id,
            base=home.sandboxes,
            spool=journal.folder / "blobs",
            program=self.tools.locate(wanted.kind),
            limit_ms=self.limit_ms,
            params=wanted.params,
            inputs=tuple(inputs),
            restore=await self._fetch_restore(journal, folder / "restore"),
            limits=Limits(**wanted.limits.model_dump()),
            gpus=self.tools.devices.device_nodes(self.attempt.devices),
            visible_devices=self.tools.devices.visible(self.attempt.devices),
            progress_from=wanted.progress_from,
        )

    async def _fetch_restore(self, journal: Journal, target: Path) -> Path | None:
        restore = self.attempt.spec.restore
        if restore is None:
            return None
        try:
            await self._patiently(
                partial(self.tools.transfer.get_checkpoint, self.attempt.id, self.attempt.fence, restore.sha256, restore.size, target)
            )
        except TransferRefused as error:
            # The attempt is still worth running, from its beginning; whoever wrote that checkpoint is not paid for it.
            self._restore_failed = True
            self._say(journal, f"checkpoint {restore.number} could not be fetched, starting over: {error.message}")
            return None
        self._say(journal, f"resuming from checkpoint {restore.number}")
        return target

    async def _patiently(self, fetch: Callable[[], Awaitable[None]]) -> None:
        deadline = self.tools.monotonic() + FETCH_PATIENCE_S
        pause_s = 0.2
        while True:
            try:
                await fetch()
                return
            except TransferFailed:
                if self.tools.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 4.0)

    # -- during -------------------------------------------------------------------------------------------------------

    def _watch_limit(self) -> None:
        """Count from now until the agent itself ends the attempt; a slow start takes nothing from its time to run."""
        if self._backstop is not None:
            self._backstop.cancel()
        self._backstop = asyncio.get_running_loop().call_later(self.limit_ms / 1000 + LIMIT_BACKSTOP_S, self._enforce_limit)

    def _enforce_limit(self) -> None:
        self._over_limit = True
        self._stopped = asyncio.ensure_future(self.tools.runner.stop(self.attempt.id))

    async def _report(self, journal: Journal, event: RunnerEvent) -> None:
        if isinstance(event, Started):
            reach("agent.started")
            self._started_at = self.tools.monotonic()
            self._watch_limit()
            self._spool(journal, Running(session=NO_SESSION, attempt=self.attempt.id, fence=self.attempt.fence))
            if self._stopping is not None:
                await self.tools.runner.stop(self.attempt.id)
        elif isinstance(event, LogText):
            while not self.tools.spool.has_room() and not self._silent:  # noqa: ASYNC110 rare, and many causes free room
                await asyncio.sleep(0.1)
            self._write(journal, Stream(event.stream), event.text)
        elif isinstance(event, ProgressReport):
            self._progress(event)
        elif self._silent and isinstance(event, CheckpointReady | ArtefactReady):
            event.path.unlink(missing_ok=True)
        elif isinstance(event, CheckpointReady):
            self._take_checkpoint(journal, event)
        elif isinstance(event, ArtefactReady):
            event.path.replace(journal.blob(event.sha256))
            reach("agent.artefact_kept")
            self._spool(
                journal,
                Artefact(
                    session=NO_SESSION,
                    attempt=self.attempt.id,
                    fence=self.attempt.fence,
                    name=event.name,
                    sha256=event.sha256,
                    size=event.size,
                ),
            )
        elif isinstance(event, RestoreFailed):
            self._note_restore_failed(journal, event.reason)
        elif isinstance(event, Ended):
            reach("agent.sandbox_ended")
            self._conclude(journal, event)
            reach("agent.end_spooled")
        else:
            await self._bury(journal, event)

    def _progress(self, event: ProgressReport) -> None:
        pct = min(100.0, max(0.0, event.pct))
        self.tools.emit(
            Progress(
                session=NO_SESSION,
                attempt=self.attempt.id,
                fence=self.attempt.fence,
                pct=pct,
                operation=event.operation[:200],
                node_at=time.time(),
            )
        )

    def _take_checkpoint(self, journal: Journal, event: CheckpointReady) -> None:
        event.path.replace(journal.blob(event.sha256))
        reach("agent.checkpoint_kept")
        frame = Checkpoint(
            session=NO_SESSION,
            attempt=self.attempt.id,
            fence=self.attempt.fence,
            number=event.number,
            sha256=event.sha256,
            size=event.size,
            pct=min(100.0, max(0.0, event.pct)),
            ran_ms=event.ran_ms,
        )
        self._spool(journal, frame)

    def _note_restore_failed(self, journal: Journal, reason: str) -> None:
        """The job's own word, which counts only where there was a checkpoint."""
        if self.attempt.spec.restore is None:
            return
        self._restore_failed = True
        self._say(journal, f"the job could not use its checkpoint: {reason}")

    # -- after --------------------------------------------------------------------------------------------------------

    def _conclude(self, journal: Journal, event: Ended) -> None:
        reason, detail = Exit(event.exit.value), event.detail
        if self._over_limit and reason in (Exit.STOPPED, Exit.SIGNALLED, Exit.KILLED):
            # It was this agent that ended it. Any other end came before, and its news late: a full spool holds them up.
            reason = Exit.TIME_LIMIT
        elif reason is Exit.STOPPED and self._stopping is not None:
            detail = detail or self._stopping
        elif reason not in (Exit.STOPPED, Exit.TIME_LIMIT) and event.exit_code != 0 and (lost := self._lost_device()):
            reason, detail = Exit.SANDBOX_FAILED, f"the device {lost} failed while the job ran"
        for name, why in event.rejected[:20]:
            self._say(journal, f"output file {name!r} was not taken: {why}")
        self._finish(journal, reason, exit_code=event.exit_code, signal=event.signal, detail=detail, agent_ms=event.ran_ms)

    def _lost_device(self) -> str | None:
        return next(filter(self.tools.devices.lost, self.attempt.devices), None)

    async def _bury(self, journal: Journal, event: RunnerDied) -> None:
        await asyncio.to_thread(self.tools.bury, self.attempt.id, event.gone)
        ran_ms = 0 if self._started_at is None else int((self.tools.monotonic() - self._started_at) * 1000)
        if self._over_limit:
            self._finish(journal, Exit.TIME_LIMIT, detail=event.detail, agent_ms=ran_ms)
        elif self._stopping is not None:
            self._finish(journal, Exit.STOPPED, detail=self._stopping, agent_ms=ran_ms)
        else:
            await asyncio.sleep(self.tools.death_grace_s)
            self._finish(journal, Exit.SANDBOX_FAILED, detail=event.detail, agent_ms=ran_ms)

    def _finish(
        self,
        journal: Journal,
        reason: Exit,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        detail: str = "",
        agent_ms: int = 0,
    ) -> None:
        self._spool(
            journal,
            finished_frame(
                journal, reason, exit_code=exit_code, signal=signal, detail=detail, agent_ms=agent_ms, restore_failed=self._restore_failed
            ),
        )

    def _say(self, journal: Journal, line: str) -> None:
        """A line in the platform's own voice."""
        self._write(journal, Stream.AGENT, line + "\n")

    def _write(self, journal: Journal, stream: Stream, text: str) -> None:
        if not self._silent:
            journal.log(stream, text, time.time())
            self.tools.wake()

    def _spool(self, journal: Journal, frame: Durable) -> None:
        if not self._silent:
            journal.append(frame)
            self.tools.wake()


def finished_frame(
    journal: Journal,
    reason: Exit,
    *,
    exit_code: int | None = None,
    signal: int | None = None,
    detail: str = "",
    agent_ms: int = 0,
    restore_failed: bool = False,
) -> Finished:
    """The last frame of an attempt, with the manifest of what its journal holds."""
    manifest = journal.manifest
    return Finished(
        session=NO_SESSION,
        attempt=journal.attempt,
        fence=journal.fence,
        exit=reason,
        exit_code=exit_code,
        signal=signal,
        detail=detail[:2000],
        agent_ms=max(0, agent_ms),
        log_ends=dict(manifest.log_ends),
        checkpoints=tuple(manifest.checkpoints[-CHECKPOINTS_LISTED_MAX:]),
        artefacts=tuple(manifest.artefacts),
        restore_failed=restore_failed,
    )


async def _merged(events: AsyncIterator[RunnerEvent]) -> AsyncIterator[RunnerEvent]:
    """The same events, adjacent log texts that wait already joined into one: a flood of lines costs few frames, a single line no delay."""
    queue: asyncio.Queue[RunnerEvent | BaseException] = asyncio.Queue(EVENTS_QUEUED_MAX)

    async def pump() -> None:
        try:
            async for event in events:
                await queue.put(event)
            await queue.put(RunnerDied("the runner's events ended without an end"))
        except Exception as error:
            await queue.put(error)

    pumping = asyncio.ensure_future(pump())
    waiting: RunnerEvent | BaseException | None = None
    try:
        while True:
            current = waiting if waiting is not None else await queue.get()
            waiting = None
            if isinstance(current, BaseException):
                raise current
            while isinstance(current, LogText) and not queue.empty():
                waiting = queue.get_nowait()
                joined = _join(current, waiting)
                if joined is None:
                    break
                current, waiting = joined, None
            yield current
            if is_last(current):
                return
    finally:
        pumping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pumping


def _join(first: LogText, second: RunnerEvent | BaseException) -> LogText | None:
    if not isinstance(second, LogText) or second.stream != first.stream:
        return None
    text = first.text + second.text
    return LogText(first.stream, first.offset, text) if len(text) <= LOG_CHUNK_MAX_BYTES // 4 else None
