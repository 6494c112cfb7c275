"""Few at once, some waiting, the rest told to come back."""

from __future__ import annotations

import asyncio

import pytest

from qubix.kernel.errors import Unavailable
from serve_app.gate import Gate


async def test_no_more_are_inside_than_the_gate_lets_in_and_nobody_is_forgotten() -> None:
    gate = Gate(at_once=2, waiting_max=100)
    inside, most, done = 0, 0, 0

    async def one() -> None:
        nonlocal inside, most, done
        async with gate.place():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            done += 1

    await asyncio.gather(*(one() for _ in range(50)))
    assert (most, done) == (2, 50)


async def test_past_the_queue_one_is_told_to_come_back_and_a_place_that_was_left_is_free_again() -> None:
    gate = Gate(at_once=1, waiting_max=1)
    async with gate.place():
        waiting = asyncio.create_task(gate.place().__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refused:
            async with gate.place():
                pass
        assert refused.value.extra["retry_after_s"] > 0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with gate.place():
        pass
