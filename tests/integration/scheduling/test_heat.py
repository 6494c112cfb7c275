"""A device above its limit loses its attempt to another machine; the provider's own trouble costs the consumer nothing."""

from __future__ import annotations

import pytest

from qubix.agent.protocol import Exit, Metrics
from qubix.jobs.model import AttemptState, Fault, JobState
from tests.fakes.nodes import sample
from tests.fakes.voices import look, voice
from tests.integration.scheduling.conftest import World

pytestmark = pytest.mark.postgres


async def measured(world: World, celsius: float) -> None:
    assert world.node.session is not None
    await world.node.say(Metrics(session=world.node.session, sample=sample(world.node.device_uuids, temperature_c=celsius)))


async def test_an_attempt_on_a_device_above_its_limit_checkpoints_and_moves(world: World) -> None:
    job = await world.job(price_max=10**6)
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await measured(world, 88)
    assert [a.id for a in await world.node.desired()] == [attempt.id], "hot: no new work, what runs stays"
    await measured(world, 95)
    assert await world.node.desired() == ()
    other = await voice(world.resources, price=3600)
    await world.node.checkpoint(attempt, 1, ran_ms=900)
    await world.node.finished(attempt, exit=Exit.STOPPED, checkpoints=(1,))
    await world.control.step()
    await world.control.step()
    assert (await world.attempts(job))[0] == (AttemptState.FAILED, Fault.PROVIDER)
    (second,) = await other.desired()
    assert second.spec.restore is not None
    assert second.spec.restore.number == 1
    assert (await look(world.resources, job)).state is JobState.ASSIGNED
