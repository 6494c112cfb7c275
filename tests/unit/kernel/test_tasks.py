"""Ending background tasks."""

from __future__ import annotations

import asyncio

import pytest

from qubix.kernel import tasks


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


async def test_a_task_that_never_ends_is_named_instead_of_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    let_go = asyncio.Event()

    async def immortal() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    made = asyncio.create_task(immortal())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match="immortal"):
        await tasks.end([made], patience_s=0.05)
    let_go.set()
    await made
