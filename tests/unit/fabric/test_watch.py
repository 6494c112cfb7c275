"""What a watcher of the cluster tells: each node's appearance, and each death once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from qubix.fabric.daemon import Daemon
from qubix.scheduling.fabric import FabricNode, NodeWatch
from tests.fakes.fabric import FakeFabric, RecordedReports

LABELS = {"qubix.provider": "p", "qubix.worker-id": "w1", "qubix.region": "eu"}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.booleans(), max_size=3), max_size=12))
def test_a_node_dies_at_most_once_and_only_what_is_alive_is_seen(looks: list[dict[str, bool]]) -> None:
    watch = NodeWatch()
    dead: list[str] = []
    for look in looks:
        changes = watch.compare([FabricNode(i, {}, alive) for i, alive in look.items()])
        assert all(look[n.ray_node_id] and n.ray_node_id not in dead for n in changes.seen)
        dead += changes.dead
    assert len(dead) == len(set(dead))


async def test_a_dead_node_is_reported_once() -> None:
    fabric, reports = FakeFabric(), RecordedReports()
    daemon = Daemon(fabric, reports)
    node = fabric.add_node(LABELS)
    await daemon.step()
    fabric.kill_node(node)
    for _ in range(3):
        await daemon.step()
    assert reports.seen == [("w1", node)]
    assert reports.dead == [node]


async def test_news_that_did_not_get_through_are_told_again() -> None:
    fabric, reports = FakeFabric(), RecordedReports(failing=1)
    daemon = Daemon(fabric, reports)
    node = fabric.add_node(LABELS)
    await daemon.step()
    assert reports.seen == []
    await daemon.step()
    reports.failing = 1
    fabric.kill_node(node)
    await daemon.step()
    await daemon.step()
    assert (reports.seen, reports.dead) == ([("w1", node)], [node])


async def test_a_machine_that_is_no_providers_gets_no_agent() -> None:
    fabric = FakeFabric()
    fabric.add_node({"qubix.role": "head"})
    await Daemon(fabric, RecordedReports()).step()
    await asyncio.sleep(0)
    assert fabric.agents_started == 0


async def test_a_dead_agent_on_a_living_node_is_started_again() -> None:
    fabric = FakeFabric()
    daemon = Daemon(fabric, RecordedReports(), look_s=0.0, agent_check_s=0.0)
    node = fabric.add_node(LABELS)
    running = asyncio.ensure_future(daemon.run())
    while not fabric.agents:  # noqa: ASYNC110  (the fake has nothing to wait for)
        await asyncio.sleep(0)
    fabric.kill_agent(node)
    while not fabric.agents:  # noqa: ASYNC110  (the fake has nothing to wait for)
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert fabric.agents_started == 2


async def test_a_machine_that_came_by_a_plain_ray_start_joins_by_its_labels() -> None:
    fabric, reports, provider = FakeFabric(), RecordedReports(), uuid4()
    node = fabric.add_node(LABELS | {"qubix.provider": str(provider)})
    fabric.unjoined.add(node)
    running = asyncio.ensure_future(Daemon(fabric, reports, server_url="http://platform", look_s=0.0, agent_check_s=0.0).run())
    async with asyncio.timeout(5):
        while len(reports.seen) < 2 or not fabric.agents:  # noqa: ASYNC110  (the fake has nothing to wait for)
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [(e.server_url, e.token) for e in fabric.enrolled] == [("http://platform", f"token of {provider}")]
    # Told again, for at the first time the platform did not know the worker yet.
    assert reports.seen == [("w1", node), ("w1", node)]
