"""Durable events: in order, no gap, no repeat, whatever the interleaving of publishing and subscribing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.live.feed import Bounds, Feed, Resync, same_reader
from qubix.live.outlet import Outlet
from qubix.live.topics import Topic, TopicKind
from qubix.postgres.outbox import Published

MARKET = Topic(TopicKind.MARKETPLACE)
JOB = Topic(TopicKind.JOB, UUID(int=7))
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Published_:
    """Events in memory, read as PostgreSQL would."""

    def __init__(self) -> None:
        self.events: list[Published] = []
        self.forgotten = 0

    def publish(self, *topics: Topic) -> int:
        position = self.forgotten + len(self.events) + 1
        self.events.append(Published(position, "JOB_PROGRESS", tuple(t.name for t in topics), UUID(int=position), {"n": position}, AT))
        return position

    def forget(self, count: int) -> None:
        self.events = self.events[count:]
        self.forgotten += count

    async def bounds(self) -> Bounds:
        if not self.events:
            return Bounds(0, self.forgotten)
        return Bounds(self.events[0].position, self.events[-1].position)

    async def after(self, position: int, limit: int) -> list[Published]:
        return [event for event in self.events if event.position > position][:limit]

    async def matching(self, topics: Sequence[str], *, after: int, upto: int, limit: int) -> list[Published]:
        return [e for e in self.events if after < e.position <= upto and set(topics) & set(e.topics)][:limit]


def feed_over(store: Published_) -> Feed:
    return Feed(lambda: same_reader(store))


async def positions(outlet: Outlet) -> list[int]:
    outlet.offer_durable('{"position":-1}')
    return [json.loads(text)["position"] for text in await outlet.take()][:-1]


async def advance(feed: Feed) -> None:
    while await feed._advance():
        pass


async def test_a_client_gets_what_it_missed_and_then_what_comes() -> None:
    store = Published_()
    for _ in range(3):
        store.publish(MARKET)
    feed = feed_over(store)
    await feed.start()
    outlet = Outlet()
    assert await feed.subscribe(outlet, [MARKET], 1) == 3
    store.publish(MARKET)
    await advance(feed)
    assert await positions(outlet) == [2, 3, 4]


async def test_a_snapshot_newer_than_the_feed_repeats_nothing() -> None:
    store = Published_()
    store.publish(MARKET)
    feed = feed_over(store)
    await feed.start()
    for _ in range(3):
        store.publish(MARKET)
    outlet = Outlet()
    await feed.subscribe(outlet, [MARKET], 3)
    await advance(feed)
    assert await positions(outlet) == [4]


async def test_an_event_of_two_topics_comes_once_under_both_names() -> None:
    store = Published_()
    feed = feed_over(store)
    await feed.start()
    outlet = Outlet()
    await feed.subscribe(outlet, [MARKET, JOB], None)
    store.publish(MARKET, JOB)
    await advance(feed)
    (text,) = await outlet.take()
    assert json.loads(text)["topics"] == ["marketplace", JOB.name]


async def test_clients_who_come_back_soon_are_answered_without_the_database() -> None:
    store = Published_()
    for _ in range(5):
        store.publish(MARKET)
    feed = feed_over(store)
    await feed.start()
    for _ in range(5):
        store.publish(MARKET, JOB)
    await advance(feed)
    expected, store.events = [event.position for event in store.events], []  # whoever reads now finds nothing
    for position in range(11):
        outlet = Outlet()
        assert await feed.subscribe(outlet, [MARKET], position) == 10
        assert await positions(outlet) == expected[position:]
    outlet = Outlet()
    assert await feed.subscribe(outlet, [JOB], 2) == 10
    assert await positions(outlet) == expected[5:]


async def test_what_is_too_long_ago_to_be_remembered_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.live.feed.RECENT_MAX", 3)
    store = Published_()
    feed = feed_over(store)
    await feed.start()
    for _ in range(10):
        store.publish(MARKET)
    await advance(feed)
    for position in range(11):
        outlet = Outlet()
        assert await feed.subscribe(outlet, [MARKET], position) == 10
        assert await positions(outlet) == list(range(position + 1, 11))


async def test_past_retention_the_answer_is_resync_with_the_newest_position() -> None:
    store = Published_()
    for _ in range(10):
        store.publish(MARKET)
    store.forget(5)
    feed = feed_over(store)
    await feed.start()
    with pytest.raises(Resync) as gap:
        await feed.subscribe(Outlet(), [MARKET], 3)
    assert gap.value.position == 10
    assert await feed.subscribe(Outlet(), [MARKET], 5) == 10


async def test_a_position_from_another_database_is_answered_with_resync() -> None:
    feed = feed_over(Published_())
    await feed.start()
    with pytest.raises(Resync):
        await feed.subscribe(Outlet(), [MARKET], 99)


async def test_an_unsubscribed_outlet_hears_nothing_more() -> None:
    store = Published_()
    feed = feed_over(store)
    await feed.start()
    outlet = Outlet()
    await feed.subscribe(outlet, [MARKET, JOB], None)
    feed.unsubscribe(outlet, JOB)
    store.publish(JOB)
    feed.unsubscribe(outlet)
    store.publish(MARKET)
    await advance(feed)
    assert await positions(outlet) == []


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["publish", "publish other", "advance", "drop"]), max_size=60), st.integers(1, 7))
async def test_p_a10_a_client_that_drops_and_resumes_has_every_event_once_and_in_order(steps: list[str], batch: int) -> None:
    store = Published_()
    feed = feed_over(store)
    await feed.start()
    outlet, seen = Outlet(), [0]
    await feed.subscribe(outlet, [MARKET], 0)
    for step in steps:
        match step:
            case "publish":
                store.publish(MARKET)
            case "publish other":
                store.publish(JOB)
            case "advance":
                await advance(feed)
                seen += await positions(outlet)
            case "drop":
                feed.unsubscribe(outlet)
                outlet = Outlet()
                await feed.subscribe(outlet, [MARKET], seen[-1])
    await advance(feed)
    seen += await positions(outlet)
    assert seen[1:] == [event.position for event in store.events if MARKET.name in event.topics]
