"""No replica of the web layer lives: no agent can be heard, nothing can be sent, and no provider answers for that."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qubix.agent.protocol import DesiredAttempt, Exit
from qubix.bootstrap import scope
from qubix.jobs.model import AttemptState, Fault, Job, JobState
from qubix.scheduling.model import WEB_GAP_S, WEB_RETURN_S
from tests.fakes.voices import age, look
from tests.integration.scheduling.conftest import World

TTL_S = 20


async def beat(world: World, *, begun: bool = False) -> None:
    """A replica tells that it lives."""
    async with scope(world.resources) as s:
        await s.sessions.beat(begun=begun)


async def silent_for(world: World, seconds: float) -> None:
    """So long ago lies what the web layer told last."""
    past = sa.text("UPDATE sweeper_beats SET at = at - make_interval(secs => :s) WHERE name = 'web'")
    await world.owner.execute(past, {"s": seconds})


async def started(world: World) -> tuple[Job, DesiredAttempt]:
    job = await world.job()
    (attempt,) = await world.node.desired()
    return job, await world.node.start(attempt)


async def connected(world: World) -> bool:
    return bool(await world.owner.scalar(sa.text("SELECT socket_open FROM nodes WHERE id = :id"), {"id": world.node.node_id}))


async def test_a_job_waits_while_no_replica_could_send_it_to_a_node_and_is_assigned_when_one_can(world: World) -> None:
    await beat(world)
    await silent_for(world, WEB_GAP_S + 1)
    job = await world.job()
    assert (await look(world.resources, job)).state is JobState.PENDING
    await beat(world)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.ASSIGNED


async def test_an_attempt_lost_while_the_web_layer_is_away_is_not_its_providers_fault(world: World) -> None:
    job, _ = await started(world)
    await beat(world)
    await silent_for(world, TTL_S + 1)
    await age(world.owner, TTL_S + 1)
    await world.control.step()
    assert (await world.attempts(job))[0] == (AttemptState.LOST, Fault.PLATFORM)


@pytest.mark.parametrize(("back_for_s", "fault"), [(WEB_RETURN_S - 10, Fault.PLATFORM), (WEB_RETURN_S + 1, Fault.PROVIDER)])
async def test_soon_after_its_return_a_lost_attempt_is_still_the_platforms_and_later_no_more(
    world: World, back_for_s: float, fault: Fault
) -> None:
    job, _ = await started(world)
    await beat(world)
    await silent_for(world, TTL_S + 1)
    await beat(world, begun=True)
    await world.owner.execute(sa.text("UPDATE sweeper_beats SET resumed_at = resumed_at - make_interval(secs => :s)"), {"s": back_for_s})
    await age(world.owner, TTL_S + 1)
    await world.control.step()
    assert (await world.attempts(job))[0] == (AttemptState.LOST, fault)


async def test_an_agent_that_was_restarted_with_the_head_answers_for_nothing(world: World) -> None:
    job, attempt = await started(world)
    await beat(world)
    await silent_for(world, WEB_GAP_S + 1)
    await beat(world, begun=True)
    await world.node.hello()
    await world.node.finished(attempt, Exit.SANDBOX_FAILED, detail="the agent was restarted while this ran")
    await world.control.step()
    assert (await world.attempts(job))[0] == (AttemptState.FAILED, Fault.PLATFORM)


async def test_a_node_that_is_silent_while_the_web_layer_lives_answers_for_it(world: World) -> None:
    job, _ = await started(world)
    await beat(world)
    await silent_for(world, WEB_GAP_S - 1)
    await beat(world)
    await age(world.owner, TTL_S + 1)
    await world.control.step()
    assert (await world.attempts(job))[0] == (AttemptState.LOST, Fault.PROVIDER)


async def test_a_replica_that_begins_after_a_pause_knows_that_no_old_socket_is_open(world: World) -> None:
    await beat(world, begun=True)
    assert await connected(world)
    await silent_for(world, WEB_GAP_S + 1)
    await age(world.owner, WEB_GAP_S + 2, nodes=True)
    await beat(world, begun=True)
    assert not await connected(world)
    await world.node.status()
    assert await connected(world)


async def test_a_replica_that_goes_on_after_a_pause_or_begins_beside_others_shuts_nobody_out(world: World) -> None:
    await beat(world)
    await age(world.owner, 60, nodes=True)
    await beat(world, begun=True)
    assert await connected(world)
    await silent_for(world, WEB_GAP_S + 1)
    await beat(world, begun=False)
    assert await connected(world)


async def test_an_agent_that_was_faster_than_the_first_beat_stays_connected(world: World) -> None:
    await beat(world)
    await silent_for(world, WEB_GAP_S + 1)
    await world.node.hello()
    await beat(world, begun=True)
    assert await connected(world)


async def test_the_web_layer_cannot_touch_the_sweepers_beat(world: World) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        async with scope(world.resources) as s:
            await s.connection.execute(sa.text("UPDATE sweeper_beats SET at = clock_timestamp()"))
