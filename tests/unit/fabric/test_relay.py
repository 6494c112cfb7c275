"""The relay's shell: it forwards, and finds the actor again after it was lost."""

from __future__ import annotations

from typing import Any

import pytest

from qubix.fabric.hub import RayRelay
from qubix.kernel.events import EventType
from qubix.live.hub import Board, Volatile

MESSAGE = Volatile(EventType.JOB_LOG, ("job:1",), "log:1/out", {"text": "hi"}, 1.0)


class Handle:
    """An actor's handle, as far as it is used."""

    def __init__(self, board: Board, *, lost: bool = False) -> None:
        self._board, self._lost = board, lost

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            if self._lost:
                raise ConnectionError("the actor died")
            return await getattr(self._board, method)(*arguments)

        return type("Method", (), {"remote": staticmethod(call)})


async def test_what_one_replica_pushes_another_pulls() -> None:
    board = Board()
    relay = RayRelay(lambda: Handle(board))
    cursor, _ = await relay.pull(-1, 0)
    await relay.push("a", [MESSAGE])
    assert await relay.pull(cursor, 0) == (cursor + 1, [("a", (MESSAGE,))])
    assert await relay.recent("job:1") == [MESSAGE]


async def test_a_lost_actor_is_looked_for_again() -> None:
    handles = [Handle(Board(), lost=True), Handle(Board())]
    relay = RayRelay(lambda: handles.pop(0))
    with pytest.raises(ConnectionError):
        await relay.push("a", [MESSAGE])
    await relay.push("a", [MESSAGE])
    assert await relay.recent("job:1") == [MESSAGE]
