"""Writer lanes: many callers, few transactions. A lane takes whatever queued while its last transaction committed.

Without a timer the commit itself gathers the next batch, and a lone caller waits for nobody: right where the database is the
bottleneck (money acts). `linger_s` is for the opposite case, many small writes that nobody waits for (heartbeats): there a
transaction of one item each would cost more processor time than the items. The write of a lane is one transaction of a
set-based act (`deposit`, `mature`, a round of heartbeats), which answers once per item.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar, cast

from qubix.kernel.errors import Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_MAX: Final = 256
QUEUE_MAX: Final = 10_000


class LaneFull(Unavailable):
    """More is queued than the lane will hold; the caller must slow down."""

    code = "lane_full"


class Lanes(Generic[Item, Answer]):
    """One or two writers over one queue.

    Args: write, commits a batch in one transaction and returns one answer per item, in order; lanes, how many write at
        once (1 keeps a hot account, like `fee`, to one writer); batch_max, items per transaction; queue_max, items waiting;
        linger_s, how long a batch that is not full waits for company.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        lanes: int = 1,
        batch_max: int = BATCH_MAX,
        queue_max: int = QUEUE_MAX,
        linger_s: float = 0.0,
    ) -> None:
        if lanes not in (1, 2):
            raise ValueError("one or two lanes: more only wait for one another's locks")
        self._write = write
        self._lanes = lanes
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._linger_s = linger_s
        self._queue: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._writers: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Answer:
        """Queue `item` and wait until the transaction that carries it has committed.

        Returns: the act's answer for this item. Raises: LaneFull; whatever the write raised for this item alone.
        """
        if len(self._queue) >= self._queue_max:
            raise LaneFull(f"{self._queue_max} items wait already", next_step="try again in a moment")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if len(self._writers) < self._lanes:
            self._writers.add(asyncio.create_task(self._run(), name="lane"))
        return await future

    async def close(self) -> None:
        """Wait until everything queued so far has been written."""
        while self._writers:
            await asyncio.gather(*self._writers)

    async def _run(self) -> None:
        try:
            await asyncio.sleep(self._linger_s)  # with 0 too, callers that are ready now join the first batch
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
                await self._write_batch(batch)
                if self._linger_s and 0 < len(self._queue) < self._batch_max:
                    await asyncio.sleep(self._linger_s)
        finally:  # before anybody else runs: whoever submits next must see that a writer is missing
            self._writers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _write_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for one in batch:  # one poisonous item must not hold up the others: each on its own, the acts know repeats
                await self._write_batch([one])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
