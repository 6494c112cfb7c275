"""The main path: a job is created, placed, accepted, run, finished and settled, by the roles as the product runs them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Ack, Grant
from qubix.bootstrap import Resources, scope
from qubix.jobs.model import JobState
from tests.fakes.voices import age, consumer, controller, look, posted, problems, submit, voice


async def test_a_job_is_created_placed_run_and_paid(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner, money=1000)
    node = await voice(resources, price=3600)
    control = await controller(controller_resources)
    job = await submit(resources, user)
    assert (job.state, job.ceiling, job.rate_max) == (JobState.PENDING, 600, 3600)
    assert await posted(owner, user) == 400

    await control.step()
    (attempt,) = await node.desired()
    assert attempt.fence == 1
    assert attempt.limit_ms == 600_000
    assert (await look(resources, job)).state is JobState.ASSIGNED

    (granted,) = await node.accept(attempt)
    assert isinstance(granted, Grant)
    assert granted.limit_ms == 600_000
    assert [type(answer) for answer in await node.running(attempt)] == [Ack]
    assert (await look(resources, job)).state is JobState.RUNNING
    await node.progress(attempt, 40.0)
    await node.log(attempt, "hello\n")
    await node.checkpoint(attempt, 1, ran_ms=5000)
    await node.artefact(attempt, "model.pt", b"weights")
    await age(owner, 60)
    assert [type(a) for a in await node.finished(attempt, log_ends={"out": 6}, checkpoints=(1,), artefacts=("model.pt",))] == [Ack]

    await control.step()
    done = await look(resources, job)
    assert (done.state, done.progress) == (JobState.COMPLETED, 100.0)
    async with scope(resources) as s:
        receipt = await s.jobs.receipt(user, job.id)
        (artefact,) = await s.jobs.artefacts(user, job.id)
        (line,) = await s.jobs.logs(user, job.id)
        timeline = [entry.what for entry in await s.jobs.timeline(user, job.id)]
    assert receipt.final
    assert 60 <= receipt.charged <= 63
    assert receipt.held == 600 == receipt.charged + (receipt.refunded or 0)
    assert (artefact.name, artefact.size, line.text) == ("model.pt", 7, "hello\n")
    assert timeline == ["created", "assigned", "accepted", "running", "checkpoint", "succeeded", "completed"]
    assert await posted(owner, user) == 1000 - receipt.charged
    assert await node.desired() == ()
    assert await owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 0
    assert await problems(owner) == []
