"""What the database answers to a round of placement: the shortlist of one job, of a hundred, and the whole market, with their devices.

    python -m benchmarks.shortlist [--nodes 10000]

A real PostgreSQL with a market of its own, the product's own statements, one connection. The mark is ours: a shortlist for one job
within 50 ms, the others within a round of a second, at the 99th percentile (ratio = mark ÷ measured). The first calls count too.
`plan_p50_ms` is the choice among what was read.
"""

from __future__ import annotations

import argparse
import collections
import random
import time
from typing import Final
from uuid import UUID

import asyncpg
import uvloop

from benchmarks._market import KINDS, fill, found, server
from benchmarks._report import percentile, report
from qubix.capacity.store import CapacityStore
from qubix.kernel.money import Qu
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.scheduling.model import Rules
from qubix.scheduling.placement import Wanted
from qubix.scheduling.placement_store import PlacementStore, Waiting
from qubix.scheduling.placing import make_plan, with_slots

MARKS_MS: Final = {"1 job": 50.0, "100 jobs": 1000.0, "whole market": 1000.0}


async def measure(embedded: EmbeddedServer, nodes: int) -> None:
    """What the database answers to one round: the shortlist with its devices, and the whole market."""
    await found(embedded)
    owner = await asyncpg.connect(embedded.url())
    filled_s = await fill(owner, nodes, devices=True)
    await owner.close()
    chance = random.Random(5)
    engine = make_engine(embedded.url("qubix_controller"), pool_size=1)
    times: dict[str, list[float]] = collections.defaultdict(list)
    plans: dict[str, list[float]] = collections.defaultdict(list)
    async with engine.connect() as connection:
        store, capacity = PlacementStore(connection), CapacityStore(connection)
        for case, jobs, rounds in (("1 job", 1, 60), ("100 jobs", 100, 12)):
            for _ in range(rounds):
                wanted = [Wanted(UUID(int=n), chance.choice(KINDS), Qu(40_000), 1) for n in range(jobs)]
                began = time.perf_counter()
                offers = await store.offers(await store.shortlist(wanted, Rules()), Rules())
                few = with_slots(offers, await capacity.uses([offer.node_id for offer in offers]))
                times[case].append((time.perf_counter() - began) * 1000)
                began = time.perf_counter()
                make_plan([Waiting(job, UUID(int=1), None) for job in wanted], few, whole=False)
                plans[case].append((time.perf_counter() - began) * 1000)
        for _ in range(5):
            began = time.perf_counter()
            with_slots(await store.offers(None, Rules()), await capacity.uses(None))
            times["whole market"].append((time.perf_counter() - began) * 1000)
        await connection.rollback()
    await engine.dispose()
    for case, mark in MARKS_MS.items():
        p99 = percentile(times[case], 0.99)
        report(
            "shortlist",
            case,
            p99,
            "ms p99",
            against="mark",
            against_value=mark,
            ratio=mark / p99,
            reach=1.0,
            aim=5.0,
            p50_ms=round(percentile(times[case], 0.5), 2),
            plan_p50_ms=round(percentile(plans[case], 0.5), 2) if case in plans else None,
            nodes=nodes,
            filled_s=round(filled_s, 1),
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    options = parser.parse_args()
    with server() as embedded:
        uvloop.run(measure(embedded, options.nodes))


if __name__ == "__main__":
    main()
