"""A platform on the real database, whose controller is scraped as Prometheus would."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources
from qubix.controller import Controller
from qubix.jobs.model import Job
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
        """A funded job, placed if it can be."""
        job = await submit(self.resources, self.user, **members)
        await self.control.step()
        return job

    async def measured(self) -> None:
        """Take a snapshot, of what is published by now."""
        await self.control.publish()
        await self.control.monitoring.measure()

    def value(self, name: str, **labels: str) -> float:
        """One sample of a scrape. Raises: KeyError if there is none."""
        for family in text_string_to_metric_families(generate_latest(self.control.registry).decode()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        raise KeyError(name, labels)


@pytest.fixture
async def world(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> World:
    user = await consumer(resources, owner)
    made = World(resources, owner, user, await voice(resources), await controller(controller_resources))
    await made.measured()
    return made
