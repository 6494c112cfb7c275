"""The sending half of one session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from uuid import UUID

from websockets.asyncio.client import ClientConnection

from qubix.agent.protocol import Artefact, Checkpoint, Durable, Finished, Frame, Metrics, Progress, Stream
from qubix.agent.spool import Journal, Spool
from qubix.agent.transfer import AttemptOver, Transfer, TransferFailed, TransferRefused
from qubix.kernel.failpoints import reach

IN_FLIGHT_MAX = 256
UPLOADS_MAX = 2
SAID_MAX = 1000
SAME_BYTES = "the same bytes under another name were not taken"

log = logging.getLogger(__name__)


class Link:
    """The sending half of one session: control frames at once, durable frames from the spool, bytes before their frames."""

    def __init__(
        self,
        socket: ClientConnection,
        session: UUID,
        spool: Spool,
        transfer: Transfer,
        resend_s: float,
        monotonic: Callable[[], float],
        over: Callable[[UUID, int], None],
    ) -> None:
        """Args: resend_s, after which an unacknowledged frame goes out again; over, the web layer wants nothing more of an attempt."""
        self.session = session
        self.wake = asyncio.Event()
        self._over = over
        self._socket, self._spool, self._transfer = socket, spool, transfer
        self._resend_s, self._monotonic = resend_s, monotonic
        self._said: deque[Frame] = deque()
        self._in_flight: dict[str, tuple[Journal, float]] = {}
        self._uploading: dict[str, asyncio.Task[None]] = {}
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)
        self._stored: deque[tuple[Journal, str]] = deque()
        self.wake.set()

    def say(self, frame: Frame) -> None:
        """Send a frame that needs no acknowledgement. A backlog of volatile ones (the network is slow) loses its oldest."""
        self._said.append(frame)
        if len(self._said) > SAID_MAX:
            old = next((f for f in self._said if isinstance(f, Metrics | Progress)), None)
            if old is not None:
                self._said.remove(old)
        self.wake.set()

    def acknowledged(self, key: str) -> None:
        """The web layer has committed it; with `finished` the whole attempt is done with."""
        self._in_flight.pop(key, None)
        journal = self._journal(key)
        if journal is None:
            return
        journal.acknowledge(key)
        reach("agent.acknowledged")
        if key.endswith("/finished"):
            self._spool.forget(journal.attempt)
        self.wake.set()

    def missing(self, attempt: UUID, keys: tuple[str, ...]) -> None:
        """`finished` was refused for now: send what is missing, then `finished` again."""
        journal = self._spool.get(attempt)
        if journal is None:
            return
        for key in keys:
            self._in_flight.pop(key, None)
            if not journal.want(key):
                log.error("%s is missing at the web layer and not here either", key)
                journal.stuck = True
        last = f"{attempt}/finished"
        # Left in flight until the resend time where nothing can be sent first, so that the two sides do not spin.
        if any(journal.want(key) for key in keys):
            self._in_flight.pop(last, None)
            journal.want(last)
        self.wake.set()

    def forget(self, journal: Journal) -> None:
        """Send nothing more of an attempt."""
        for key in [k for k, (j, _) in self._in_flight.items() if j is journal]:
            del self._in_flight[key]
        for key in [k for k in self._uploading if k.startswith(f"{journal.attempt}/")]:
            self._uploading.pop(key).cancel()

    def resend_overdue(self) -> None:
        """What was not acknowledged in time goes out again."""
        late = self._monotonic() - self._resend_s
        for key, (journal, sent_at) in list(self._in_flight.items()):
            if sent_at < late:
                del self._in_flight[key]
                journal.due_again([key])
                self.wake.set()

    async def send_forever(self) -> None:
        """Send until cancelled or the connection breaks."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while await self._send_one():
                pass

    async def hang_up(self) -> None:
        """End the connection; whoever reads from it sees its end."""
        await self._socket.close()

    async def close(self) -> None:
        """Stop the uploads of this session; they begin again in the next."""
        tasks = list(self._uploading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_one(self) -> bool:
        if self._said:
            await self._socket.send(self._said.popleft().model_dump_json())
            return True
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            return False
        while self._stored:
            journal, key = self._stored.popleft()
            if self._spool.get(journal.attempt) is journal:
                await self._send_durable(journal, key)
                return True
        for journal in self._spool:
            while (due := journal.next_due()) is not None:
                if due in self._uploading:
                    continue
                frame = journal.frame(due, self.session)
                if isinstance(frame, Checkpoint | Artefact) and journal.blob(frame.sha256).exists():
                    self._uploading[due] = asyncio.create_task(self._upload(journal, frame))
                    continue
                if isinstance(frame, Checkpoint | Artefact) and journal.is_refused(frame.sha256):
                    self._refuse(journal, frame, SAME_BYTES)
                    continue
                await self._send_durable(journal, due)
                return True
        return False

    async def _send_durable(self, journal: Journal, key: str) -> None:
        frame = journal.frame(key, self.session)
        if isinstance(frame, Finished) and journal.refused:
            frame = _without(frame, journal.refused)
        self._in_flight[key] = (journal, self._monotonic())
        await self._socket.send(frame.model_dump_json())

    async def _upload(self, journal: Journal, frame: Durable) -> None:
        assert isinstance(frame, Checkpoint | Artefact)  # noqa: S101 the only caller checks
        pause_s = 0.2
        try:
            while True:
                try:
                    async with self._uploads:
                        await self._transfer.put_blob(frame.attempt, frame.fence, frame.sha256, journal.blob(frame.sha256))
                    reach("agent.bytes_sent")
                    self._stored.append((journal, frame.key))
                    return
                except FileNotFoundError:
                    # The same bytes under another name went first, and were taken or refused.
                    if journal.is_refused(frame.sha256):
                        self._refuse(journal, frame, SAME_BYTES)
                    else:
                        self._stored.append((journal, frame.key))
                    return
                except AttemptOver as error:
                    log.warning("%s: %s", frame.key, error.message)
                    self._uploading.pop(frame.key, None)
                    self._over(frame.attempt, frame.fence)
                    return
                except TransferRefused as error:
                    log.error("%s refused: %s", frame.key, error.message)
                    self._refuse(journal, frame, error.message)
                    return
                except TransferFailed as error:
                    log.warning("%s: %s", frame.key, error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 4.0)
        finally:
            self._uploading.pop(frame.key, None)
            self.wake.set()

    def _refuse(self, journal: Journal, frame: Artefact | Checkpoint, why: str) -> None:
        """Leave it out of the attempt, and tell the job's owner."""
        what = f"output file {frame.name!r}" if isinstance(frame, Artefact) else f"checkpoint {frame.number}"
        journal.refuse(frame.key)
        journal.log(Stream.AGENT, f"{what} was not taken by the platform: {why}\n", time.time())

    def _journal(self, key: str) -> Journal | None:
        try:
            return self._spool.get(UUID(key.partition("/")[0]))
        except ValueError:
            return None


def _without(frame: Finished, refused: set[str]) -> Finished:
    """The manifest without what the web layer will never take."""
    return frame.model_copy(
        update={
            "artefacts": tuple(n for n in frame.artefacts if f"{frame.attempt}/artefact/{n}" not in refused),
            "checkpoints": tuple(n for n in frame.checkpoints if f"{frame.attempt}/checkpoint/{n}" not in refused),
        }
    )
