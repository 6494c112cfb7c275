"""Writer lanes: every caller is answered once, whatever happens to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from qubix.kernel.lanes import LaneFull, Lanes


class Ledger:
    """Records batches; an item below 0 poisons the batch that it is in."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.writing = 0
        self.writing_max = 0

    async def write(self, items: Sequence[int]) -> list[int]:
        self.writing += 1
        self.writing_max = max(self.writing_max, self.writing)
        for _ in range(3):
            await asyncio.sleep(0)
        self.writing -= 1
        if any(item < 0 for item in items):
            raise ArithmeticError("poison")
        self.batches.append(list(items))
        return [item * 10 for item in items]


async def test_callers_that_wait_together_travel_together() -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write)
    assert await asyncio.gather(*(lanes.submit(i) for i in range(50))) == [i * 10 for i in range(50)]
    assert len(ledger.batches) == 1
    assert await lanes.submit(7) == 70


@pytest.mark.parametrize("count", [1, 2])
async def test_no_more_than_the_stated_lanes_write_at_once(count: int) -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write, lanes=count, batch_max=3)
    assert sorted(await asyncio.gather(*(lanes.submit(i) for i in range(40)))) == [i * 10 for i in range(40)]
    assert ledger.writing_max == count
    assert max(len(batch) for batch in ledger.batches) == 3
    assert sorted(item for batch in ledger.batches for item in batch) == list(range(40))


async def test_one_poisonous_item_fails_alone() -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write)
    answers = await asyncio.gather(*(lanes.submit(i) for i in (1, -1, 2, 3)), return_exceptions=True)
    assert [answers[0], answers[2], answers[3]] == [10, 20, 30]
    assert isinstance(answers[1], ArithmeticError)
    assert await lanes.submit(5) == 50


async def test_a_caller_that_went_away_costs_the_others_nothing() -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write)
    leaving = asyncio.create_task(lanes.submit(1))
    staying = asyncio.create_task(lanes.submit(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 20
    await lanes.close()


async def test_whoever_comes_just_when_a_writer_ends_is_still_written() -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write)
    for ticks in range(12):
        first = asyncio.create_task(lanes.submit(1))
        for _ in range(ticks):
            await asyncio.sleep(0)
        assert await asyncio.wait_for(lanes.submit(2), 5) == 20
        assert await first == 10


async def test_a_full_lane_says_so() -> None:
    ledger = Ledger()
    lanes = Lanes(ledger.write, queue_max=2)
    waiting = [asyncio.create_task(lanes.submit(i)) for i in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LaneFull):
        await lanes.submit(3)
    assert await asyncio.gather(*waiting) == [0, 10]


async def test_a_lane_that_lingers_takes_those_who_come_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, lingering = Ledger(), asyncio.Event()
    sleep = asyncio.sleep

    async def linger(seconds: float) -> None:
        await (lingering.wait() if seconds else sleep(0))

    monkeypatch.setattr("qubix.kernel.lanes.asyncio.sleep", linger)
    lanes = Lanes(ledger.write, linger_s=60.0)
    first = asyncio.create_task(lanes.submit(1))
    await sleep(0)
    second = asyncio.create_task(lanes.submit(2))
    await sleep(0)
    assert ledger.batches == []
    lingering.set()
    assert await asyncio.gather(first, second) == [10, 20]
    assert ledger.batches == [[1, 2]]


def test_three_lanes_are_refused() -> None:
    with pytest.raises(ValueError, match="one or two"):
        Lanes(Ledger().write, lanes=3)
