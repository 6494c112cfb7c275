"""The shortlist that placement reads decides as the whole market would, over a market with leases, prices and places of all kinds."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks._market import CATALOGUE, REGIONS, fill
from qubix.bootstrap import Resources, scope
from qubix.capacity.store import CapacityStore
from qubix.jobs.model import JobState
from qubix.kernel.money import Qu
from qubix.market.model import Needs
from qubix.scheduling.model import Rules
from qubix.scheduling.placement import Candidate, Wanted
from qubix.scheduling.placement_store import PlacementStore, Waiting
from qubix.scheduling.placing import make_plan, with_slots
from tests.conftest import Database
from tests.fakes.voices import consumer, controller, look, submit, voice

RULES = Rules()


def want(chance: random.Random, n: int, nodes: list[UUID], offers: list[UUID]) -> Waiting:
    """A job that asks for something, drawn so that some fit often, some seldom and some never."""

    def sometimes(share: float, value: Any) -> Any:
        return value if chance.random() < share else None

    model = chance.choice(CATALOGUE)[0]
    needs: dict[str, Any] = {
        "gpus": chance.choice((1, 1, 1, 2, 4, 8)),
        "gpu_models": sometimes(0.4, (model.lower().replace("_", "-"), chance.choice(CATALOGUE)[0])),
        "vram_bytes": sometimes(0.4, chance.choice((16, 24, 80)) << 30),
        "tflops": sometimes(0.2, 30.0),
        "cpu_cores": sometimes(0.2, 32),
        "regions": sometimes(0.3, (chance.choice((*REGIONS, "eu", "us")),)),
        "price_max": sometimes(0.2, 4000),
        "reliability_min": sometimes(0.2, 0.6),
        "verified": sometimes(0.1, True),
    }
    few = frozenset(chance.sample(nodes, 3))
    wanted = Wanted(
        UUID(int=n),
        Needs(**{name: value for name, value in needs.items() if value is not None}),
        Qu(chance.choice((3000, 20_000, 300_000))),
        1,
        offer_id=sometimes(0.05, chance.choice(offers)),
        quote_offer_id=sometimes(0.2, chance.choice(offers)),
        barred=few if chance.random() < 0.2 else frozenset(),
        wary=few if chance.random() < 0.3 else frozenset(),
        left=sometimes(0.1, Qu(chance.choice((1, 4)))),
    )
    return Waiting(wanted, UUID(int=1), None)


async def test_a_shortlist_decides_as_the_whole_market_does(database: Database, controller_resources: Resources) -> None:
    owner = await asyncpg.connect(database.url())
    await fill(owner, 300, devices=True)
    await owner.close()
    chance = random.Random(7)
    placed = refused = 0
    async with scope(controller_resources) as s:
        store, capacity = PlacementStore(s.connection), CapacityStore(s.connection)
        whole = with_slots(await store.offers(None, RULES), await capacity.uses(None))
        nodes, offers = sorted({one.node_id for one in whole}), [one.offer_id for one in whole]

        async def short(queue: list[Waiting]) -> list[Candidate]:
            found = await store.offers(await store.shortlist([job.wanted for job in queue], RULES), RULES)
            return with_slots(found, await capacity.uses([one.node_id for one in found]))

        for first in range(0, 40 * 8, 8):
            queue = [want(chance, first + n, nodes, offers) for n in range(8)]
            few = await short(queue)
            asked = [one.wanted.job_id for one in queue]
            plan, plain = make_plan(queue, few), make_plan(queue, whole)
            # A job that keeps a node takes its devices from those behind it; on a shortlist none does, so compare up to there.
            until = next((asked.index(one.job_id) for one in plain.refusals if one.keep), len(asked))
            decided = {one.job_id: one.choice for one in plan.assignments}
            for job_id, choice in ((one.job_id, one.choice) for one in plain.assignments if asked.index(one.job_id) < until):
                assert decided[job_id] == choice
                placed += 1
            assert {job_id for job_id in decided if asked.index(job_id) < until} <= {one.job_id for one in plain.assignments}
            refused += len(plain.refusals)
    assert placed > 60
    assert refused > 40


async def test_a_job_behind_others_that_fit_nowhere_is_placed_within_two_rounds(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    await voice(resources)
    for _ in range(5):
        await submit(resources, user, needs={"gpus": 8}, price_max=100)
    small = await submit(resources, user)
    await owner.execute(sa.text("UPDATE device_leases SET during = tstzrange(now() - interval '2 s', now() - interval '1 s')"))
    placed = []
    for _ in range(2):
        async with scope(controller_resources) as s:
            placed += [one.job_id for one in (await s.placing.plan(most=3)).assignments]
    assert placed == [small.id]


async def test_between_two_looks_at_the_whole_market_a_job_keeps_its_reason_and_its_node(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources, gpus=2)
    control = await controller(controller_resources)
    await submit(resources, user)
    await control.step()
    (running,) = await node.desired()
    large = await submit(resources, user, needs={"gpus": 2}, price_max=3600)
    await control.step()
    told = (await look(resources, large)).unplaceable
    controller_resources.pace.looked(controller_resources.clock.monotonic(), took_s=1000.0)
    small = await submit(resources, user, price_max=3600)
    await owner.execute(
        sa.text("UPDATE device_leases SET during = tstzrange(now() - interval '2 s', now() + interval '1 s') WHERE purpose = 'reservation'")
    )
    await control.step()
    left_s = await owner.scalar(
        sa.text("SELECT extract(epoch FROM upper(during) - now()) FROM device_leases WHERE purpose = 'reservation'")
    )
    assert left_s is not None
    assert left_s > 5, "the node stays kept"
    assert (await look(resources, large)).unplaceable == told
    assert (await look(resources, small)).state is JobState.PENDING
    await node.start(running)
    await node.finished(running)
    await control.step()
    assert (await look(resources, large)).state is JobState.ASSIGNED
