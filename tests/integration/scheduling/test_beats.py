"""Heartbeats of many machines in one transaction are judged as each alone would be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from qubix.agent.protocol import AliveAttempt, Desired, DesiredAttempt, Metrics, Status, Stop
from qubix.bootstrap import scope
from qubix.jobs.model import AttemptState
from qubix.scheduling.beats import Received
from qubix.scheduling.store import Beat
from tests.fakes.nodes import sample
from tests.fakes.voices import Voice, age, somebody_waits, voice
from tests.integration.scheduling.conftest import World

pytestmark = pytest.mark.postgres


def beat(
    node: Voice, *alive: DesiredAttempt, session: UUID | None = None, seq: int = 0, generation: int = 0, celsius: float = 50
) -> Status:
    node.seq += 1
    found = session or node.session
    assert found is not None
    return Status(
        session=found,
        seq=seq or node.seq,
        generation=generation,
        alive=tuple(AliveAttempt(id=attempt.id, fence=attempt.fence) for attempt in alive),
        sample=sample(node.device_uuids, temperature_c=celsius),
    )


async def take(world: World, *beats: tuple[Voice, Beat]) -> list[Received | None]:
    async with scope(world.resources) as s:
        return await s.beats.take([(node.node_id, said) for node, said in beats])


async def counted(world: World, nodes: Sequence[Voice]) -> list[tuple[int, int]]:
    """Per node: the seq that the database has, and its stored measurements."""
    rows = await world.owner.execute(
        sa.text("""SELECT n.id, n.session_seq, (SELECT count(*) FROM devices d JOIN device_metrics m ON m.device_id = d.id
                   WHERE d.node_id = n.id) AS samples FROM nodes n""")
    )
    by_id = {row.id: (row.session_seq, row.samples) for row in rows}
    return [by_id[node.node_id] for node in nodes]


async def test_every_beat_of_a_round_counts_and_is_answered(world: World) -> None:
    nodes = [world.node, await voice(world.resources), await voice(world.resources, gpus=2)]
    before = await counted(world, nodes)
    answered = await take(world, *((node, beat(node)) for node in nodes))
    for node, received in zip(nodes, answered, strict=True):
        assert received is not None
        (desired,) = received.answers
        assert isinstance(desired, Desired)
        assert (desired.session, desired.attempts) == (node.session, ())
        assert [live.topics for live in received.live] == [(f"provider:{node.provider_id}",)] * len(node.device_uuids)
    after = await counted(world, nodes)
    assert [(seq - old, samples - had) for (seq, samples), (old, had) in zip(after, before, strict=True)] == [(1, 1), (1, 1), (1, 2)]


async def test_beats_lock_the_offers_they_write_in_the_order_in_which_everybody_does(world: World) -> None:
    nodes = [world.node, await voice(world.resources)]
    offers = {row.node_id: row.id for row in await world.owner.execute(sa.text("SELECT id, node_id FROM offers"))}
    first, second = sorted(nodes, key=lambda node: offers[node.node_id])
    # The plan reads the nodes as they lie in the table: the first one behind the second.
    await world.owner.execute(sa.text("UPDATE nodes SET name = name WHERE id = :id"), {"id": first.node_id})
    lock = sa.text("SELECT FROM offers WHERE id = :id FOR NO KEY UPDATE NOWAIT")
    async with scope(world.resources) as s:  # as whoever refreshes the offers of several nodes
        await s.connection.execute(lock, {"id": offers[first.node_id]})
        taken = asyncio.create_task(take(world, (second, beat(second)), (first, beat(first))))
        await somebody_waits(world.owner)
        await s.connection.execute(lock, {"id": offers[second.node_id]})
    assert None not in await taken


async def test_4b_4_in_a_round_too_an_old_session_counts_for_nothing_and_an_old_seq_changes_nothing(world: World) -> None:
    older, repeating, measured = [await voice(world.resources) for _ in range(3)]
    gone = older.session
    await older.hello()
    before = await counted(world, [older, repeating, measured, world.node])
    answered = await take(
        world,
        (older, beat(older, session=gone, seq=99)),
        (repeating, beat(repeating, seq=repeating.seq)),
        (measured, Metrics(session=uuid4(), sample=sample(measured.device_uuids))),
        (world.node, beat(world.node)),
    )
    assert answered[0] is None
    assert answered[1] == Received()
    assert answered[2] is None
    assert answered[3] is not None
    after = await counted(world, [older, repeating, measured, world.node])
    assert after[:3] == before[:3]
    assert after[3] != before[3]


async def test_a_node_neither_renews_nor_holds_what_is_another_nodes(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    stranger = await voice(world.resources, price=10**6)
    await age(world.owner, 15)
    mine, others = await take(world, (world.node, beat(world.node)), (stranger, beat(stranger, attempt)))
    assert mine is not None
    assert others is not None
    assert [answer.attempt for answer in others.answers if isinstance(answer, Stop)] == [attempt.id]
    await age(world.owner, 6)
    await world.control.sweep()
    assert (await world.attempts(job))[0][0] is AttemptState.LOST, "nobody but its node renews an attempt"
    assert await world.quarantined() == 1
    await take(world, (world.node, beat(world.node, generation=10**6)), (stranger, beat(stranger, attempt, generation=10**6)))
    assert await world.quarantined() == 0, "only what its own node names is still there"


async def test_a_round_renews_each_nodes_own_attempt_and_desires_it(world: World) -> None:
    other = await voice(world.resources)
    jobs = [await world.job(), await world.job()]
    attempts = {node.node_id: (await node.desired())[0] for node in (world.node, other)}
    for node in (world.node, other):
        await node.start(attempts[node.node_id])
    await age(world.owner, 15)
    answered = await take(world, *((node, beat(node, attempts[node.node_id])) for node in (world.node, other)))
    for node, received in zip((world.node, other), answered, strict=True):
        assert received is not None
        (desired,) = received.answers
        assert isinstance(desired, Desired)
        assert [attempt.id for attempt in desired.attempts] == [attempts[node.node_id].id]
        assert len(received.live[0].topics) == 2, "the provider's watchers, and the job's"
    await age(world.owner, 10)
    await world.control.sweep()
    assert [(await world.attempts(job))[0][0] for job in jobs] == [AttemptState.RUNNING] * 2


async def test_a_device_that_overheats_in_a_round_changes_what_its_own_node_should_run(world: World) -> None:
    await world.job(price_max=10**6)
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    cool = await voice(world.resources, price=10**6)
    async with scope(world.resources) as s:
        before = await s.sessions.desired(world.node.node_id)
    assert before is not None
    hot, fine = await take(world, (world.node, beat(world.node, attempt, celsius=95)), (cool, beat(cool)))
    assert hot is not None
    assert fine is not None
    desired = hot.answers[-1]
    assert isinstance(desired, Desired)
    assert (desired.generation, desired.attempts) == (before.generation + 1, ())
