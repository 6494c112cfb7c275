"""Ending background tasks."""

from __future__ import annotations

import asyncio

from serve_app import tasks


async def test_a_task_that_swallows_a_cancellation_still_ends() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async def broken() -> None:
        raise ValueError

    made = [asyncio.create_task(stubborn()), asyncio.create_task(broken())]
    await asyncio.sleep(0)
    await tasks.end(made)
    assert all(task.done() for task in made)
