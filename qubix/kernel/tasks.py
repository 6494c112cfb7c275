"""Ending background tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_S: Final = 0.5
PATIENCE_S: Final = 30.0
"""A task that outlasts this many seconds of cancellations is stuck: saying so is better than never stopping."""


async def end(tasks: Iterable[asyncio.Task[Any]], *, patience_s: float = PATIENCE_S) -> None:
    """Cancel tasks until they are over; what they raise at their end is dropped.

    One cancellation is not enough: Python 3.11's `wait_for` swallows one that meets its result, and a TaskGroup cancels its
    children only once. Raises: TimeoutError, naming the tasks that are alive after `patience_s`.
    """
    left = set(tasks)
    deadline = asyncio.get_running_loop().time() + patience_s
    while left:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"still running after {patience_s:g} s of cancellations: {', '.join(sorted(map(_name, left)))}")
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())
