"""Frames of attempts: what a node's current session says of an attempt that is its own and not fenced off.

Each answer is sent after the transaction has committed; durable frames are acknowledged by it, so a resend is harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qubix.agent.protocol import (
    LOG_CHUNK_MAX_BYTES,
    Accept,
    Ack,
    Artefact,
    Checkpoint,
    Decline,
    Down,
    Exit,
    Finished,
    Grant,
    InputFile,
    Log,
    Metrics,
    Missing,
    Progress,
    Restore,
    Running,
    Status,
    Stop,
    Stream,
    Up,
)
from qubix.jobs import news
from qubix.jobs.model import AttemptState, AttemptStep, JobState, JobStep, attempt_after, job_after, progress_after
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Conflict, Invalid, NotFound, TooLarge
from qubix.kernel.events import Event, EventType
from qubix.live.hub import Volatile
from qubix.scheduling.beats import BeatsService, Received
from qubix.scheduling.model import AGENT_LOG_BYTES_MAX, INPUT_BYTES_PER_S, Rules
from qubix.scheduling.placing import LEASE_SLACK_S
from qubix.scheduling.sessions import SessionOver

if TYPE_CHECKING:
    from qubix.capacity.service import CapacityService
    from qubix.jobs.blobs import Blob
    from qubix.scheduling.frame_store import FrameStore, Spoken
    from qubix.scheduling.sessions import SessionsService

Named = Accept | Decline | Progress | Running | Checkpoint | Artefact | Finished
WITHOUT_RUNNING: Final = frozenset({Exit.SANDBOX_FAILED, Exit.INPUT_FAILED, Exit.STOPPED})
"""Ends that an attempt may report without ever having run."""
MISSING_MAX: Final = 200


class StaleAttempt(Conflict):
    """The attempt is fenced off, over, or another node's."""

    code = "stale_attempt"


class FramesService:
    """Takes frames, and says who may send or fetch which bytes.

    Args: store and capacity over the transaction's connection; sessions; beats; keep_blob, notes stored bytes so that a
        reference to them is safe; clock, stamps volatile messages; tell, adds an event; wake, after the commit.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        sessions: SessionsService,
        beats: BeatsService,
        capacity: CapacityService,
        keep_blob: Callable[[Blob], Awaitable[object]],
        clock: Clock,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        rules: Rules,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._beats = beats
        self._capacity = capacity
        self._keep_blob = keep_blob
        self._clock = clock
        self._tell = tell
        self._wake = wake
        self._rules = rules

    async def receive(self, node_id: UUID, frame: Up) -> Received:
        """Take one frame of the node. Raises: SessionOver when another session speaks for it."""
        return await self.receive_many(node_id, [frame])

    async def receive_many(self, node_id: UUID, frames: Sequence[Up]) -> Received:
        """Take frames that arrived together, in their order, in one transaction; neighbouring log frames are stored as one batch.

        Raises: SessionOver; then nothing of the batch counts.
        """
        answers: list[Down] = []
        live: list[Volatile] = []
        logs: list[Log] = []
        if len(frames) > 1 and any(isinstance(frame, Status | Metrics) for frame in frames):
            await self._beats.lock([node_id])  # node before job: the order of locks everywhere, whatever stands first in the batch
        for frame in frames:
            if isinstance(frame, Log):
                logs.append(frame)
                continue
            if logs:
                await self._logs(node_id, logs, answers, live)
                logs = []
            await self._one(node_id, frame, answers, live)
        if logs:
            await self._logs(node_id, logs, answers, live)
        return Received(tuple(answers), tuple(live))

    async def _one(self, node_id: UUID, frame: Up, answers: list[Down], live: list[Volatile]) -> None:
        match frame:
            case Status() | Metrics():
                (taken,) = await self._beats.take([(node_id, frame)])
                if taken is None:
                    raise SessionOver
                answers += taken.answers
                live += taken.live
            case Accept() | Decline() | Progress() | Running() | Checkpoint() | Artefact() | Finished():
                answers += await self._named(node_id, frame, live)
            case _:
                raise Invalid("a session is opened once", next_step="connect anew")

    async def _named(self, node_id: UUID, frame: Named, live: list[Volatile]) -> list[Down]:
        spoken = await self._store.lock_attempt(node_id, frame.session, frame.attempt, frame.fence)
        if spoken is None or not spoken.live:
            await self._current(node_id, frame.session)
            return [_stop(frame, "this attempt is over")]
        match frame:
            case Accept():
                return await self._accept(spoken, frame)
            case Decline():
                return await self._decline(spoken, frame)
            case Progress():
                return await self._progress(spoken, frame, live)
            case Running():
                return await self._running(spoken, frame)
            case Checkpoint():
                return await self._checkpoint(spoken, frame)
            case Artefact():
                return await self._artefact(spoken, frame)
            case Finished():
                return await self._finished(spoken, frame)

    async def _accept(self, spoken: Spoken, frame: Accept) -> list[Down]:
        if spoken.cancelled or spoken.reported or not spoken.funded:
            return [_stop(frame, "it is not wanted any more")]
        if spoken.state is AttemptState.CREATED:
            attempt_after(spoken.state, AttemptStep.ACCEPT)
            start_s = await self._store.accept(spoken.attempt_id, deadline_s=self._rules.run_deadline_s, bytes_per_s=INPUT_BYTES_PER_S)
            # Its time to fetch is not part of its time to run, and nobody may lease its devices meanwhile.
            await self._capacity.extend(spoken.attempt_id, ttl_s=start_s + spoken.limit_ms / 1000 + LEASE_SLACK_S)
        elif spoken.state is not AttemptState.ACCEPTED:
            return [_stop(frame, "it was started already")]
        return [Grant(attempt=frame.attempt, fence=frame.fence, limit_ms=spoken.limit_ms)]

    async def _decline(self, spoken: Spoken, frame: Decline) -> list[Down]:
        if spoken.state is not AttemptState.RUNNING and not spoken.reported:
            await self._store.decline(spoken.attempt_id, frame.reason.replace("\0", "?"))
            self._wake("jobs", "")
        return [_stop(frame, "declined")]

    async def _running(self, spoken: Spoken, frame: Running) -> list[Down]:
        if spoken.state is AttemptState.CREATED:
            return [_stop(frame, "it was never accepted")]
        if spoken.state is AttemptState.ACCEPTED:
            attempt_after(spoken.state, AttemptStep.RUN)
            after = job_after(spoken.job_state, JobStep.RUN)
            await self._store.run(spoken.attempt_id, spoken.job_id)
            members = {"attempt": spoken.number, "attempt_id": str(spoken.attempt_id), "node_id": str(spoken.node_id)}
            self._tell(news.status_changed(spoken.job_id, after, provider_id=spoken.provider_id, **members))
        return [Ack(key=frame.key)]

    async def _progress(self, spoken: Spoken, frame: Progress, live: list[Volatile]) -> list[Down]:
        if spoken.job_state is not JobState.RUNNING or spoken.reported:
            return []
        pct = progress_after(spoken.progress, frame.pct)
        operation = frame.operation.replace("\0", "?")
        await self._store.progress(spoken, attempt_pct=progress_after(0.0, frame.pct), job_pct=pct, operation=operation)
        members = {
            "job_id": str(spoken.job_id),
            "attempt": spoken.number,
            "progress": pct,
            "operation": operation,
            "node_at": frame.node_at,
        }
        live.append(self._volatile(EventType.JOB_PROGRESS, spoken, f"progress:{spoken.attempt_id}", members))
        return []

    async def _checkpoint(self, spoken: Spoken, frame: Checkpoint) -> list[Down]:
        if spoken.state is not AttemptState.RUNNING:
            return [_stop(frame, "it is not running")]
        if await self._store.blob_size(spoken.attempt_id, frame.sha256) != frame.size:
            return [Missing(attempt=frame.attempt, keys=(frame.key,))]
        await self._store.add_checkpoint(frame)
        return [Ack(key=frame.key)]

    async def _artefact(self, spoken: Spoken, frame: Artefact) -> list[Down]:
        if spoken.state is not AttemptState.RUNNING:
            return [_stop(frame, "it is not running")]
        if _presentable(frame.name):
            if await self._store.blob_size(spoken.attempt_id, frame.sha256) != frame.size:
                return [Missing(attempt=frame.attempt, keys=(frame.key,))]
            await self._store.add_artefact(frame, spoken.job_id)
        return [Ack(key=frame.key)]

    async def _finished(self, spoken: Spoken, frame: Finished) -> list[Down]:
        if spoken.reported:
            return [Ack(key=frame.key)]
        missing = await self._missing(spoken, frame)
        if missing:
            return [Missing(attempt=frame.attempt, keys=tuple(missing[:MISSING_MAX]))]
        await self._store.finish(frame)
        self._wake("jobs", "")
        return [Ack(key=frame.key)]

    async def _missing(self, spoken: Spoken, frame: Finished) -> list[str]:
        keys: list[str] = []
        if spoken.state is not AttemptState.RUNNING:
            if frame.exit in WITHOUT_RUNNING:
                return keys
            keys.append(f"{frame.attempt}/running")
        logs, checkpoints, artefacts = await self._store.received(spoken.attempt_id)
        # Of what the agent says itself, a last piece that would pass the limit is dropped, and not asked for again.
        most: dict[str, int] = {Stream.AGENT: AGENT_LOG_BYTES_MAX - 4 * LOG_CHUNK_MAX_BYTES}
        keys += [
            f"{frame.attempt}/log/{stream}/{logs.get(stream, 0)}"
            for stream, end in sorted(frame.log_ends.items())
            if logs.get(stream, 0) < min(end, most.get(stream, spoken.limits.log_bytes_max))
        ]
        keys += [f"{frame.attempt}/checkpoint/{n}" for n in frame.checkpoints if n not in checkpoints]
        keys += [f"{frame.attempt}/artefact/{name}" for name in frame.artefacts if _presentable(name) and name not in artefacts]
        return keys

    async def _logs(self, node_id: UUID, frames: Sequence[Log], answers: list[Down], live: list[Volatile]) -> None:
        stored: list[tuple[Log, int]] = []
        known: dict[tuple[UUID, int, UUID], Spoken | None] = {}
        for frame in frames:
            name = (frame.attempt, frame.fence, frame.session)
            if name not in known:
                known[name] = await self._store.peek_attempt(node_id, frame.session, frame.attempt, frame.fence)
                if known[name] is None:
                    await self._current(node_id, frame.session)
            spoken = known[name]
            if spoken is None or not spoken.live or spoken.state is AttemptState.CREATED:
                answers.append(_stop(frame, "this attempt is over"))
                continue
            answers.append(Ack(key=frame.key))
            if not frame.text or frame.offset >= spoken.limits.log_bytes_max:
                continue
            stored.append((frame, spoken.limits.log_bytes_max))
            members = {
                "attempt": spoken.number,
                "stream": frame.stream,
                "offset": frame.offset,
                "text": frame.text,
                "node_at": frame.node_at,
            }
            live.append(self._volatile(EventType.JOB_LOG, spoken, f"log:{spoken.attempt_id}/{frame.stream}", members))
        if stored:
            await self._store.add_logs(stored)

    async def _current(self, node_id: UUID, session: UUID) -> None:
        if await self._store.session(node_id) != session:
            raise SessionOver

    def _volatile(self, kind: EventType, spoken: Spoken, subject: str, members: dict[str, Any]) -> Volatile:
        return Volatile(kind, (f"job:{spoken.job_id}",), subject, {"job_id": str(spoken.job_id), **members}, self._clock.now().timestamp())

    # -- bytes beside the socket --

    async def put_limit(self, token: str, attempt_id: UUID, fence: int, *, sha256: str = "") -> int:
        """How many bytes the attempt may still store, `sha256` itself not counted: a repeat is harmless.

        Raises: Unauthenticated; StaleAttempt; SessionOver when another session began meanwhile.
        """
        spoken = await self._spoken(token, attempt_id, fence)
        return max(0, spoken.limits.disk_bytes - await self._store.stored_bytes(attempt_id, besides=sha256))

    async def stored(self, token: str, attempt_id: UUID, fence: int, blob: Blob) -> None:
        """Note bytes that the attempt has put into the blob store; its frame may refer to them now.

        Raises: as put_limit; TooLarge when others of its PUTs were faster; Unavailable when the bytes were collected meanwhile.
        """
        spoken = await self._spoken(token, attempt_id, fence)
        await self._store.lock_puts(attempt_id)
        left = spoken.limits.disk_bytes - await self._store.stored_bytes(attempt_id, besides=blob.sha256)
        if blob.size > left:
            raise TooLarge(f"the attempt may store {left} more bytes", next_step="leave it out", limit=left)
        await self._keep_blob(blob)
        await self._store.add_blob(attempt_id, blob.sha256)
        await self._store.note_storage(attempt_id, failed=False)

    async def not_stored(self, token: str, attempt_id: UUID, fence: int) -> None:
        """The blob store failed under bytes of the attempt: if it is lost now, the platform answers for it. Raises: as put_limit."""
        await self._spoken(token, attempt_id, fence)
        await self._store.note_storage(attempt_id, failed=True)

    async def input(self, token: str, attempt_id: UUID, fence: int, name: str) -> InputFile:
        """An input that the attempt may fetch. Raises: Unauthenticated; StaleAttempt; NotFound."""
        spoken = await self._spoken(token, attempt_id, fence)
        found = await self._store.input(spoken.job_id, name)
        if found is None:
            raise NotFound(f"the job has no input {name!r}")
        return found

    async def checkpoint(self, token: str, attempt_id: UUID, fence: int) -> Restore:
        """The checkpoint that the attempt resumes from. Raises: Unauthenticated; StaleAttempt; NotFound."""
        await self._spoken(token, attempt_id, fence)
        found = await self._store.restore(attempt_id)
        if found is None:
            raise NotFound("this attempt starts from the beginning")
        return found

    async def _spoken(self, token: str, attempt_id: UUID, fence: int) -> Spoken:
        node_id, session = await self._sessions.authenticate(token)
        spoken = await self._store.peek_attempt(node_id, session, attempt_id, fence)
        if spoken is None or not spoken.live:
            await self._current(node_id, session)  # a session that ended a moment ago says nothing of its attempts
            raise StaleAttempt("this attempt is over", next_step="kill it and forget it")
        return spoken


def _stop(frame: Named | Log, reason: str) -> Stop:
    return Stop(attempt=frame.attempt, fence=frame.fence, reason=reason)


def _presentable(name: str) -> bool:
    """Whether an artefact's name may be stored and shown; the agent collects no other, so one comes from a broken agent."""
    return name.isprintable() and not name.startswith("/") and ".." not in name.split("/")
