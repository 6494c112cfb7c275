"""A consumer, a node and a controller on the real database: what the tests of attempts begin with."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.controller import Controller
from qubix.jobs.model import AttemptState, Fault, Job
from qubix.kernel.ids import UserId
from tests.fakes.voices import Voice, consumer, controller, submit, voice


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

    async def attempts(self, job: Job) -> list[tuple[AttemptState, Fault | None]]:
        async with scope(self.resources) as s:
            return [(attempt.state, attempt.fault) for attempt in await s.jobs.attempts(job.owner_id, job.id)]

    async def quarantined(self) -> int:
        return int(await self.owner.scalar(sa.text("SELECT count(*) FROM device_quarantines")) or 0)


@pytest.fixture
async def world(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> World:
    user = await consumer(resources, owner)
    return World(resources, owner, user, await voice(resources), await controller(controller_resources))
