"""Attacks on the first promise: an accepted job is neither lost nor charged twice, whoever is away, slow or broken."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Ack, DesiredAttempt
from qubix.bootstrap import Resources, scope
from qubix.controller import Controller
from qubix.escrow.store import EscrowStore
from qubix.jobs.model import Job, JobState
from qubix.kernel.ids import UserId
from qubix.scheduling.placing import Assignment, PlacingService, PlanStale
from tests.fakes.voices import Voice, age, consumer, controller, look, problems, submit, voice

AWAY_S = 3600


@dataclasses.dataclass
class World:
    resources: Resources
    owner: AsyncConnection
    user: UserId
    node: Voice
    control: Controller

    async def job(self, **members: object) -> Job:
        job = await submit(self.resources, self.user, **members)
        await self.control.step()
        return job

    async def started(self, **members: object) -> tuple[Job, DesiredAttempt]:
        job = await self.job(**members)
        (attempt,) = await self.node.desired()
        return job, await self.node.start(attempt)

    async def state(self, job: Job) -> JobState:
        return (await look(self.resources, job)).state

    async def was_away(self, seconds: float) -> None:
        """The sweeper's last beat lies that far back; everybody else worked on."""
        await self.owner.execute(sa.text("UPDATE sweeper_beats SET at = at - make_interval(secs => :s)"), {"s": seconds})


@pytest.fixture
async def world(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> World:
    user = await consumer(resources, owner)
    return World(resources, owner, user, await voice(resources), await controller(controller_resources))


async def test_a_job_that_waits_through_an_outage_of_the_controller_still_waits_afterwards(world: World) -> None:
    await world.node.disconnect()
    job = await world.job(wait_s=600)
    await age(world.owner, AWAY_S)
    await world.was_away(AWAY_S)
    await world.control.step()
    assert await world.state(job) is JobState.PENDING
    await world.node.hello()
    await world.control.step()
    assert await world.state(job) is JobState.ASSIGNED


async def test_an_outage_of_the_controller_gives_no_lease_more_than_a_fresh_one(world: World) -> None:
    job, attempt = await world.started()
    await world.was_away(AWAY_S)
    await world.node.status(attempt)
    await world.control.step()
    assert await world.state(job) is JobState.RUNNING
    await age(world.owner, 21)
    await world.control.step()
    assert await world.state(job) is JobState.PENDING, "the node is silent: an hour of outage must not become an hour of lease"
    late = sa.text("SELECT count(*) FROM nodes WHERE last_status_at > clock_timestamp()")
    assert await world.owner.scalar(late) == 0


async def test_a_job_that_came_during_an_outage_waits_no_longer_than_it_asked_for(world: World) -> None:
    await world.node.disconnect()
    await world.control.step()
    job = await submit(world.resources, world.user, wait_s=600)
    await world.was_away(AWAY_S)
    await world.control.step()
    beyond = sa.text("SELECT wait_until > clock_timestamp() + interval '601 seconds' FROM jobs WHERE id = :id")
    assert await world.owner.scalar(beyond, {"id": job.id}) is False


async def test_a_job_that_waits_for_nothing_is_tried_once_before_it_is_given_up(world: World) -> None:
    job = await submit(world.resources, world.user, wait_s=0)
    await world.control.sweep()
    assert await world.state(job) is JobState.PENDING, "no round of placement has looked at it"
    await world.control.step()
    assert await world.state(job) is JobState.ASSIGNED


async def test_a_lost_job_that_waits_for_nothing_is_tried_elsewhere(world: World) -> None:
    job, _ = await world.started(wait_s=0)
    other = await voice(world.resources)
    await age(world.owner, 21)
    await world.control.step()
    assert await world.state(job) is JobState.ASSIGNED
    assert len(await other.desired()) == 1


async def test_a_job_that_waits_for_nothing_fails_once_a_round_found_nothing(world: World) -> None:
    job = await submit(world.resources, world.user, wait_s=0)
    await world.node.disconnect()
    await world.control.step()
    assert await world.state(job) is JobState.FAILED
    assert await problems(world.owner) == []


async def test_a_device_stays_leased_through_a_long_fetch_of_inputs(world: World) -> None:
    job = await world.job(duration_max_s=60)
    (attempt,) = await world.node.desired()
    await world.owner.execute(sa.text("INSERT INTO blobs (sha256, size) VALUES (repeat('a', 64), 200000000)"))
    large = sa.text("INSERT INTO job_inputs (job_id, name, sha256, size) VALUES (:id, 'set', repeat('a', 64), 200000000)")
    await world.owner.execute(large, {"id": job.id})
    await world.node.accept(attempt)
    await pass_leases(world, 150)  # the fetch takes longer than the run may, and its slack
    await world.node.status(attempt)
    await world.node.running(attempt)
    await pass_leases(world, 50)
    await world.node.status(attempt)
    await world.control.market()
    second = await submit(world.resources, world.user)
    await world.control.step()
    assert (await world.state(job), await world.state(second)) == (JobState.RUNNING, JobState.PENDING)


async def pass_leases(world: World, seconds: float) -> None:
    """Time passes for attempts and for the leases of their devices."""
    await age(world.owner, seconds)
    moved = sa.text(
        """UPDATE device_leases SET during = tstzrange(lower(during) - make_interval(secs => :s), upper(during) - make_interval(secs => :s))"""
    )
    await world.owner.execute(moved, {"s": seconds})


async def test_an_end_that_the_database_refuses_again_and_again_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await voice(world.resources)
    poisoned, first = await world.started()
    fine = await world.job()
    (second,) = await other.desired()
    await other.start(second)
    assert isinstance((await world.node.finished(first))[0], Ack)
    await other.finished(second)
    refuse_settlement_of(poisoned, monkeypatch)
    await world.control.step()
    assert (await world.state(poisoned), await world.state(fine)) == (JobState.RUNNING, JobState.COMPLETED)


async def test_a_waiting_job_that_cannot_be_ended_does_not_stop_the_sweeper(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = await world.started()
    poisoned = await world.job()
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, poisoned.id)
    refuse_settlement_of(poisoned, monkeypatch)
    await age(world.owner, 21)
    await world.control.step()
    assert await world.state(poisoned) is JobState.PENDING
    assert await world.state(job) is JobState.PENDING, "its node is silent"


def refuse_settlement_of(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database raises whenever this job is to be settled."""
    real = EscrowStore.settle

    async def settle(self: EscrowStore, escrow: Any, *rest: Any, **named: Any) -> Any:
        if escrow == job.id:
            raise asyncpg.RaiseError("a wall")
        return await real(self, escrow, *rest, **named)

    monkeypatch.setattr(EscrowStore, "settle", settle)


async def test_an_assignment_that_the_database_refuses_does_not_stop_the_sweeper(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job, attempt = await world.started()
    await voice(world.resources)
    await world.node.finished(attempt)

    async def refuse(*_: object) -> None:
        raise sa.exc.IntegrityError("INSERT", {}, asyncpg.CheckViolationError("amounts"))

    monkeypatch.setattr(PlacingService, "assign", refuse)
    await submit(world.resources, world.user)
    await world.control.step()
    assert await world.state(job) is JobState.COMPLETED


async def test_of_assignments_written_together_one_that_cannot_be_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await voice(world.resources, gpus=3, price=1)
    jobs = [await submit(world.resources, world.user) for _ in range(3)]
    real = PlacingService.assign

    async def assign(self: PlacingService, assignment: Assignment) -> UUID:
        attempt_id = await real(self, assignment)
        if assignment.job_id == jobs[1].id:
            raise PlanStale("too late")
        return attempt_id

    monkeypatch.setattr(PlacingService, "assign", assign)
    assert await world.control.place() == 2
    assert [await world.state(job) for job in jobs] == [JobState.ASSIGNED, JobState.PENDING, JobState.ASSIGNED]
    monkeypatch.undo()
    assert await world.control.place() == 1
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM attempts")) == 3


async def test_results_that_take_long_to_send_are_waited_for(world: World) -> None:
    job, attempt = await world.started(duration_max_s=60)
    await age(world.owner, 58)
    await world.node.status(attempt)
    await age(world.owner, 120)
    await world.node.status(attempt)
    await world.control.step()
    assert await world.state(job) is JobState.RUNNING
    await world.node.finished(attempt, agent_ms=58_000)
    await world.control.step()
    assert await world.state(job) is JobState.COMPLETED


async def test_results_that_never_come_are_not_waited_for_without_end(world: World) -> None:
    job, attempt = await world.started(duration_max_s=60)
    await world.owner.execute(sa.text("""UPDATE jobs SET limits = jsonb_set(limits, '{disk_bytes}', '1125899906842624')"""))
    await age(world.owner, 60 + 30 + 3600 + 1)
    await world.node.status(attempt)
    await world.control.step()
    assert await world.state(job) is JobState.PENDING, "the consumer does not answer for a node's link: it is tried elsewhere"
    ended = (await world.owner.execute(sa.text("SELECT state, fault, reason FROM attempts"))).one()
    assert tuple(ended) == ("LOST", "provider", "results_late")
    assert await problems(world.owner) == []


async def test_a_database_clock_that_is_set_back_makes_no_lease_and_no_wait_longer(world: World) -> None:
    _, attempt = await world.started()
    waiting = await world.job(wait_s=600)
    await world.owner.execute(sa.text("UPDATE sweeper_beats SET at = at + interval '1 hour'"))
    await age(world.owner, -3600, nodes=True)
    await world.control.step()
    future = sa.text("SELECT count(*) FROM attempts a, nodes n WHERE greatest(a.renewed_at, n.last_status_at) > clock_timestamp()")
    assert await world.owner.scalar(future) == 0
    late = sa.text("SELECT count(*) FROM jobs WHERE id = :id AND wait_until > clock_timestamp() + interval '601 seconds'")
    assert await world.owner.scalar(late, {"id": waiting.id}) == 0
    assert await world.node.desired() == (attempt,), "nothing is lost by it either"
