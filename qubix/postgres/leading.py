"""What the processes share of which one leads at a time: trouble that passes, loops side by side, and a stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final

import sqlalchemy as sa

from qubix.kernel.tasks import end
from qubix.postgres.engine import DRIVER_TROUBLE
from qubix.postgres.leader import NotLeader

AWAY: Final = (sa.exc.DBAPIError, sa.exc.TimeoutError, *DRIVER_TROUBLE)
"""The database is away, or refused one transaction: the step is tried again."""
FAILURE_PAUSE_S: Final = 1.0
LEADS_NO_MORE: Final = 3
"""The exit code of a process that another one has followed."""


async def side_by_side(loops: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run endless loops until one ends, by an error that is raised here; the others are ended then."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:  # no TaskGroup: it cancels once, and waits for ever for a loop that missed it
        over, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in over:
            task.result()
    finally:
        await end(tasks)


async def until_told(work: Coroutine[Any, Any, None], close: Callable[[], Awaitable[None]], *, log: Any) -> int:
    """Work until SIGTERM or SIGINT, then close.

    Returns: the exit code: 0 stopped, LEADS_NO_MORE. Raises: what `work` raises else.
    """
    task = asyncio.create_task(work)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await task
    except NotLeader as error:
        log.error("not the leader any more", reason=error.message)
        return LEADS_NO_MORE
    finally:
        with contextlib.suppress(Exception):
            await end([task, stopping])
        with contextlib.suppress(Exception):
            await close()
    return 0
