"""Volatile messages within a replica and between replicas."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Sequence
from typing import Any

from qubix.kernel.events import EventType
from qubix.live.hub import RING_KEEP_S, RING_MAX, SUBJECTS_MAX, Batch, Board, LiveHub, LocalRelay, Volatile
from qubix.live.outlet import Outlet


def sample(n: int, *, topic: str = "provider:1", subject: str = "device:a") -> Volatile:
    return Volatile(EventType.GPU_METRICS_UPDATE, (topic,), subject, {"n": n}, float(n))


class AwayRelay:
    """A relay whose process has ended."""

    async def push(self, origin: str, messages: Sequence[Volatile]) -> None:
        raise ConnectionError

    async def pull(self, after: int, wait_s: float) -> tuple[int, list[Batch]]:
        raise ConnectionError

    async def recent(self, topic: str) -> list[Volatile]:
        raise ConnectionError


async def test_a_local_client_has_a_message_without_waiting_for_the_relay() -> None:
    hub, outlet = LiveHub("a", AwayRelay()), Outlet()
    hub.attach(outlet, "provider:1", "provider:1")
    hub.publish([sample(1)])
    (text,) = await outlet.take()
    assert json.loads(text) == {"t": "live", "topic": "provider:1", "event": "GPU_METRICS_UPDATE", "at": 1.0, "payload": {"n": 1}}
    assert await hub.recent("provider:1") == []


async def test_a_message_reaches_the_other_replica_once_and_does_not_come_back() -> None:
    relay = LocalRelay()
    hubs = [LiveHub("a", relay), LiveHub("b", relay)]
    outlets = [Outlet(), Outlet()]
    loops = [asyncio.create_task(hub.run()) for hub in hubs]
    await asyncio.sleep(0)
    for hub, outlet in zip(hubs, outlets, strict=True):
        hub.attach(outlet, "provider:1", "provider:1")
    await asyncio.sleep(0.01)
    hubs[0].publish([sample(1)])
    for outlet in outlets:
        assert len(await asyncio.wait_for(outlet.take(), 1)) == 1
    hubs[1].publish([sample(2)])
    assert len(await asyncio.wait_for(outlets[0].take(), 1)) == 1
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


async def test_the_board_keeps_the_last_sixty_samples_of_each_subject() -> None:
    board = Board()
    for n in range(100):
        await board.push("a", [sample(n), sample(n, subject="device:b")])
    recent = await board.recent("provider:1")
    assert len(recent) == 2 * RING_MAX
    assert [message.payload["n"] for message in recent if message.subject == "device:a"] == list(range(40, 100))
    assert await board.recent("provider:2") == []


async def test_a_reader_that_starts_now_gets_only_what_comes() -> None:
    board = Board()
    await board.push("a", [sample(1)])
    cursor, batches = await board.pull(-1, 0.01)
    assert batches == []
    await board.push("a", [sample(2)])
    _, batches = await board.pull(cursor, 0.01)
    assert [message.payload["n"] for _, messages in batches for message in messages] == [2]


async def test_a_detached_outlet_hears_nothing() -> None:
    hub, outlet = LiveHub("a", LocalRelay()), Outlet()
    hub.attach(outlet, "provider:1", "provider:1")
    hub.detach(outlet)
    hub.publish([sample(1)])
    outlet.offer_durable("end")
    assert await outlet.take() == ["end"]


async def test_whoever_comes_back_is_told_the_latest_progress_alone() -> None:
    board = Board()
    for n in (10, 50, 99, 60):  # the last from a replica that was slow to say it
        await board.push("a", [Volatile(EventType.JOB_PROGRESS, ("job:1",), "progress:1", {"progress": n}, float(n))])
    assert [message.payload["progress"] for message in await board.recent("job:1")] == [99]


async def test_whoever_comes_back_before_the_relay_knows_is_not_told_less_than_before() -> None:
    board = Board()
    half, whole = (Volatile(EventType.JOB_PROGRESS, ("job:1",), "progress:1", {"progress": pct}, float(pct)) for pct in (50, 100))
    await board.push("a", [half])
    hub = LiveHub("a", board)
    hub.publish([whole])  # told to the clients at once, to the relay when its turn comes
    assert await hub.recent("job:1") == [whole]


async def test_a_progress_that_was_said_before_comes_too_late_to_be_told() -> None:
    hub, outlet = LiveHub("a", LocalRelay()), Outlet()
    hub.attach(outlet, "job:1", "job:1")
    for pct in (100, 50):  # the second from another replica, which the agent had before
        hub._deliver([Volatile(EventType.JOB_PROGRESS, ("job:1",), "progress:1", {"progress": pct}, float(pct))])
    assert [json.loads(text)["payload"]["progress"] for text in await outlet.take()] == [100]


async def test_the_last_samples_of_a_topic_are_found_without_looking_at_other_topics() -> None:
    board = Board()
    await board.push("a", [Volatile(EventType.JOB_LOG, (f"job:{n}",), f"log:{n}", {"n": n}, n / SUBJECTS_MAX) for n in range(SUBJECTS_MAX)])

    class Untouched(collections.OrderedDict[tuple[str, str], collections.deque[Volatile]]):
        def items(self) -> Any:
            raise AssertionError("every ring was looked at")

        __iter__ = values = keys = items

    board._rings = Untouched()
    assert [message.payload["n"] for message in await board.recent("job:7")] == [7]


async def test_the_oldest_subjects_are_forgotten_whole() -> None:
    board = Board()
    await board.push("a", [Volatile(EventType.JOB_LOG, (f"job:{n}",), f"log:{n}", {"n": n}, 0.0) for n in range(SUBJECTS_MAX)])
    await board.push("a", [Volatile(EventType.JOB_LOG, ("job:0",), "log:0", {"n": -1}, 1.0)])
    await board.push("a", [Volatile(EventType.JOB_LOG, ("job:new",), "log:new", {"n": 1}, 1.0)])
    assert [len(await board.recent(topic)) for topic in ("job:0", "job:1", "job:2", "job:new")] == [2, 0, 1, 1]
    assert len(board._by_topic) == len(board._rings) == SUBJECTS_MAX


async def test_what_has_been_silent_for_long_is_forgotten_with_all_that_it_said() -> None:
    """Else every attempt that ever ran would keep its last sixty pieces of log here."""
    board = Board()
    for n in range(1000):
        await board.push("a", [Volatile(EventType.JOB_LOG, (f"job:{n}",), f"log:{n}", {"text": "x"}, n * RING_KEEP_S / 10)])
    assert len(board._rings) == len(board._by_topic) == 11
    assert [len(await board.recent(f"job:{n}")) for n in (0, 988, 989, 999)] == [0, 0, 1, 1]
