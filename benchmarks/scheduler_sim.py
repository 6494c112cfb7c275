"""Placement at 100 000 nodes, by the product's own rules (scheduling/placement.py, placing.py) on a simulated clock.

    python -m benchmarks.scheduler_sim [--nodes 100000] [--seconds 300]

A cluster of the given size starts nearly full and is then offered more than it can carry, in bursts, while nodes die. A round a
second, as the controller plans: the jobs that wait longest and others in turn, a shortlist, and the whole market as often as `Pace`
allows. Simulated is the database alone: which offers are on the shortlist comes from sorted lists here and from an index there.
What that index costs is measured by benchmarks/shortlist.py, in a real PostgreSQL.

Fairness is Jain's index (Jain, Chiu, Hawe: A Quantitative Measure of Fairness, DEC TR-301, 1984) of the slowdown, (wait + run) / run
with runs below a minute counted as one, the bounded slowdown of parallel schedulers (Feitelson, Rudolph: Metrics and Benchmarking
for Parallel Job Scheduling, 1998): 1 is equal treatment, 1/n all for one. By account over the accounts' means, by size over the
means of the sizes. Starvation: the queue is first come first served but for what fits at once, and the oldest job that fits a busy
node has that node kept for it. It starts when the last attempt of that node ends, and none may run longer than its limit; so no job
waits longer than the jobs that were ahead of it for a node, times the longest limit. Jobs here are limited to RUN_MAX_S.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import dataclasses
import heapq
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from benchmarks._market import CATALOGUE, KINDS, REGIONS, SIZES
from benchmarks._report import percentile, report
from qubix.kernel.money import Qu
from qubix.market.model import Needs
from qubix.scheduling.model import Rules
from qubix.scheduling.placement import CONSTRAINTS, Candidate, Slot, Wanted
from qubix.scheduling.placement_store import Waiting
from qubix.scheduling.placing import BATCH_MAX, Pace, Plan, make_plan

ACCOUNTS: Final = 200
RUN_MEDIAN_S: Final = 120.0
SIGMA: Final = 1.5
RUN_MAX_S: Final = 3600.0
FULL_AT_START: Final = 0.97
LOAD: Final = 1.2
"""GPU seconds asked for, over those that the cluster has."""
LOST_PER_NODE_S: Final = 1e-6
"""A node dies every 11 days and comes back after BACK_S."""
BACK_S: Final = 120.0
STATIC: Final = tuple(test for name, test in CONSTRAINTS if name not in ("online", "barred", "busy", "budget"))


@dataclasses.dataclass(slots=True)
class Job:
    """Args: run_s, once it runs; at, since when it waits."""

    id: UUID
    account: int
    needs: Needs
    run_s: float
    at: float
    rate_max: int
    told: dict[str, Any] | None = None
    started: float | None = None
    attempt: int = 0


class Cluster:
    """Nodes with one offer each, and who holds their devices."""

    def __init__(self, nodes: int, chance: random.Random) -> None:
        self.offers: list[Candidate] = []
        self.place: dict[UUID, int] = {}
        self.held = 0
        self._free: dict[tuple[str, int], list[tuple[int, int]]] = collections.defaultdict(list)
        ids = itertools.count(1)
        rows = []
        for _ in range(nodes):
            model, gib, tflops, price = chance.choice(CATALOGUE)
            slots = tuple(Slot(device, f"GPU-{device}", gib << 30) for device in itertools.islice(ids, chance.choice(SIZES)))
            cores = 4 * chance.randint(1, 16)
            rows.append((round(price * chance.uniform(0.9, 1.1)), model, chance.choice(REGIONS), tflops, slots, cores, chance.random()))
        rows.sort(key=lambda row: row[0])
        for n, (price, model, region, tflops, slots, cores, luck) in enumerate(rows):
            made = Candidate(UUID(int=n), UUID(int=n), UUID(int=n // 10), f"node-{n}", model, region, Qu(price), 1, slots)
            made = dataclasses.replace(made, cpu_cores=cores, ram_bytes=cores << 32, tflops=tflops, reliability=luck, verified=luck > 0.5)
            self.offers.append(made)
            self.place[made.offer_id] = n
            bisect.insort(self._free[model, len(slots)], (price, n))
        self.gpus = sum(len(offer.slots) for offer in self.offers)
        self.down_gpus = 0

    def change(self, n: int, holder: UUID | None, devices: Iterable[int] | None = None, *, takes_work: bool | None = None) -> None:
        """Devices of offer `n` (None: all) change hands, or the node comes or goes."""
        old = self.offers[n]
        some = None if devices is None else set(devices)
        slots = old.slots
        if takes_work is None or some is not None:
            slots = tuple(
                Slot(s.device_id, s.device_uuid, s.vram_bytes, holder) if some is None or s.device_id in some else s for s in slots
            )
        new = dataclasses.replace(old, slots=slots, takes_work=old.takes_work if takes_work is None else takes_work)
        self.held += sum(s.holder_id is not None for s in new.slots) - sum(s.holder_id is not None for s in old.slots)
        before, after = self._room(old), self._room(new)
        self.offers[n] = new
        if before != after:
            if before:
                shelf = self._free[old.model, before]
                del shelf[bisect.bisect_left(shelf, (old.price_per_hour, n))]
            if after:
                bisect.insort(self._free[old.model, after], (old.price_per_hour, n))

    @staticmethod
    def _room(offer: Candidate) -> int:
        return sum(slot.holder_id is None for slot in offer.slots) if offer.takes_work else 0

    def shortlist(self, waiting: list[Waiting]) -> list[Candidate]:
        """What placement_store.shortlist reads: of each kind of need the cheapest with room, and what is kept for a job."""
        most = len(waiting) + sum(len(job.wanted.barred | job.wanted.wary) for job in waiting) + 1
        found = {self.place[job.wanted.reserved_node_id] for job in waiting if job.wanted.reserved_node_id is not None}
        for wanted in {(job.wanted.needs, job.wanted.rate_max): job.wanted for job in waiting}.values():
            found.update(itertools.islice(self._fitting(wanted), most))
        return [self.offers[n] for n in sorted(found)]

    def _fitting(self, wanted: Wanted) -> Iterator[int]:
        models = wanted.needs.gpu_models or [row[0] for row in CATALOGUE]
        shelves = [
            [(price, room, n) for price, n in self._free[model, room]]
            if len(self._free[model, room]) < 64
            else _rows(self._free[model, room], room)
            for model in models
            for room in range(wanted.needs.gpus, 9)
        ]
        for price, _, n in heapq.merge(*shelves):
            if price * wanted.needs.gpus > wanted.rate_max:
                return
            if all(test(wanted, self.offers[n]) for test in STATIC):
                yield n


def _rows(shelf: list[tuple[int, int]], room: int) -> Iterator[tuple[int, int, int]]:
    return ((price, room, n) for price, n in shelf)


class Simulation:
    """One run. Args: nodes; seconds, simulated; seed."""

    def __init__(self, nodes: int, seconds: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.cluster = Cluster(nodes, self.chance)
        self.seconds = seconds
        self.now = 0.0
        self.queue: dict[UUID, Job] = {}
        self.ended: list[Job] = []
        self.events: list[tuple[float, int, str, Any]] = []
        self.count = itertools.count(1)
        self.pace = Pace()
        self.after = 0
        self.kept: dict[UUID, tuple[int, tuple[int, ...], float]] = {}
        self.plans_ms: list[float] = []
        self.looks_ms: list[float] = []
        self.per_job_ms: list[float] = []
        self.used: list[float] = []
        self.lost = 0
        self.longest: dict[int, float] = collections.defaultdict(float)
        self.on: dict[int, dict[UUID, tuple[Job, tuple[int, ...]]]] = collections.defaultdict(dict)

    def run(self) -> None:
        """Fill, then a round a second."""
        self._fill()
        for second in range(self.seconds):
            self.now = float(second)
            self._arrive(second)
            while self.events and self.events[0][0] <= self.now:
                _, _, what, subject = heapq.heappop(self.events)
                getattr(self, f"_{what}")(*subject)
            self._lose()
            self._round()
            up = self.cluster.gpus - self.cluster.down_gpus
            self.used.append(min(1.0, self.cluster.held / up))

    def _new(self) -> Job:
        needs = self.chance.choice(KINDS)
        run_s = min(RUN_MAX_S, self.chance.lognormvariate(0, SIGMA) * RUN_MEDIAN_S)
        number = next(self.count)
        # A few accounts send most jobs, as everywhere.
        account = min(ACCOUNTS - 1, int(self.chance.paretovariate(0.7)) - 1)
        return Job(UUID(int=1 << 64 | number), account, needs, run_s, self.now, needs.gpus * self.chance.choice((15_000, 40_000)))

    def _fill(self) -> None:
        free = collections.deque(self.chance.sample(range(len(self.cluster.offers)), len(self.cluster.offers)))
        while self.cluster.held < FULL_AT_START * self.cluster.gpus and free:
            n = free.popleft()
            job = self._new()
            # What runs at a moment is what runs long: of a lognormal, the same one e^(sigma²) times as long; a part of it is over.
            left_s = min(RUN_MAX_S, self.chance.lognormvariate(0, SIGMA) * RUN_MEDIAN_S * math.exp(SIGMA**2)) * self.chance.random()
            self._start(job, n, tuple(slot.device_id for slot in self.cluster.offers[n].slots), left_s)

    def _arrive(self, second: int) -> None:
        mean_run = min(RUN_MAX_S, RUN_MEDIAN_S * math.exp(SIGMA**2 / 2))  # the mean of a lognormal
        rate = LOAD * self.cluster.gpus / (mean_run * statistics.mean(needs.gpus for needs in KINDS))
        burst = 4 if second % 60 < 5 else 0.72
        for _ in range(int(rate * burst) + (self.chance.random() < (rate * burst) % 1)):
            job = self._new()
            self.queue[job.id] = job

    def _lose(self) -> None:
        for _ in range(
            self.chance.binomialvariate(len(self.cluster.offers), LOST_PER_NODE_S) if hasattr(self.chance, "binomialvariate") else 0
        ):
            self._die(self.chance.randrange(len(self.cluster.offers)))
        if not hasattr(self.chance, "binomialvariate") and self.chance.random() < len(self.cluster.offers) * LOST_PER_NODE_S:
            self._die(self.chance.randrange(len(self.cluster.offers)))

    def _die(self, n: int) -> None:
        if not self.cluster.offers[n].takes_work:
            return
        self.lost += 1
        for job, _ in list(self.on.pop(n, {}).values()):
            job.attempt += 1
            self.queue[job.id] = job
        self.cluster.change(n, None, [slot.device_id for slot in self.cluster.offers[n].slots], takes_work=False)
        self.cluster.down_gpus += len(self.cluster.offers[n].slots)
        heapq.heappush(self.events, (self.now + BACK_S, next(self.count), "back", (n,)))

    def _back(self, n: int) -> None:
        self.cluster.change(n, None, takes_work=True)
        self.cluster.down_gpus -= len(self.cluster.offers[n].slots)

    def _start(self, job: Job, n: int, devices: tuple[int, ...], run_s: float) -> None:
        self.cluster.change(n, job.id, devices)
        self.on[n][job.id] = (job, devices)
        job.attempt += 1
        heapq.heappush(self.events, (self.now + run_s, next(self.count), "end", (n, job, job.attempt)))

    def _end(self, n: int, job: Job, attempt: int) -> None:
        if job.attempt != attempt or job.id not in self.on[n]:
            return
        _, devices = self.on[n].pop(job.id)
        self.cluster.change(n, None, devices)
        if job.started is not None:
            self.ended.append(job)

    def _waiting(self) -> list[Waiting]:
        jobs = list(self.queue.values())
        some = jobs[:BATCH_MAX]
        if len(jobs) > BATCH_MAX:
            self.after = self.after if BATCH_MAX <= self.after < len(jobs) else BATCH_MAX
            some += jobs[self.after : self.after + BATCH_MAX]
            self.after += BATCH_MAX
        made = []
        for job in some:
            kept = self.kept.get(job.id)
            node = None if kept is None else self.cluster.offers[kept[0]].node_id
            made.append(Waiting(Wanted(job.id, job.needs, Qu(job.rate_max), 1, reserved_node_id=node), UUID(int=job.account), job.told))
        return made

    def _round(self) -> None:
        for job_id, (n, devices, until) in list(self.kept.items()):
            if until < self.now or job_id not in self.queue:
                self._unkeep(job_id, n, devices)
        waiting = self._waiting()
        if not waiting:
            return
        shortlist = self.cluster.shortlist(waiting)
        began = time.perf_counter()
        plan = make_plan(waiting, shortlist, whole=False)
        took = time.perf_counter() - began
        self.plans_ms.append(took * 1000)
        self.per_job_ms.append(took * 1000 / len(waiting))
        looked = bool(plan.refusals) and self.pace.due(self.now)
        if looked:
            began = time.perf_counter()
            plan = make_plan(waiting, self.cluster.offers, first=plan, turn=self.pace.turn)
            took = time.perf_counter() - began
            self.looks_ms.append(took * 1000)
            self.pace.looked(self.now + took, took)
        self._apply(plan, looked=looked)

    def _apply(self, plan: Plan, *, looked: bool) -> None:
        for placed in plan.assignments:
            job = self.queue.pop(placed.job_id)
            kept = self.kept.pop(job.id, None)
            if kept is not None:
                self._unkeep(job.id, kept[0], kept[1])
            n = self.cluster.place[placed.choice.candidate.offer_id]
            self._start(job, n, tuple(slot.device_id for slot in placed.choice.slots), job.run_s)
            job.started = self.now if job.started is None else job.started
            self.longest[job.needs.gpus] = max(self.longest[job.needs.gpus], self.now - job.at)
        for refused in plan.refusals:
            job = self.queue[refused.job_id]
            why = refused.why
            if looked:
                job.told = {
                    "code": why.code,
                    "rejected": {},
                    "reserve_node_id": None if why.reserve_node_id is None else str(why.reserve_node_id),
                }
            if why.reserve_node_id is not None:
                n = why.reserve_node_id.int
                held = self.kept.get(job.id)
                if held is not None and held[0] != n:
                    self._unkeep(job.id, held[0], held[1])
                self.cluster.change(n, job.id, refused.keep)
                self.kept[job.id] = (n, refused.keep, self.now + Rules().reserve_s)

    def _unkeep(self, job_id: UUID, n: int, devices: tuple[int, ...]) -> None:
        self.kept.pop(job_id, None)
        mine = {slot.device_id for slot in self.cluster.offers[n].slots if slot.holder_id == job_id}
        self.cluster.change(n, None, mine & set(devices))


def jain(values: list[float]) -> float:
    """(sum of x)² / (n × sum of x²)."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values)) if values else 1.0


def fairness(run: Simulation, group: str) -> tuple[float, dict[str, float]]:
    """Jain's index over the mean slowdowns of the groups, and their median waits in seconds. Jobs that wait still count as they stand."""
    slow: dict[int, list[float]] = collections.defaultdict(list)
    waits: dict[int, list[float]] = collections.defaultdict(list)
    servable = [job for job in run.queue.values() if job.told is None or job.told["code"] in ("busy", "barred")]
    started = [job for _, jobs in run.on.items() for job, _ in jobs.values() if job.started is not None]
    for job in (*run.ended, *started, *servable):
        wait = (run.now if job.started is None else job.started) - job.at
        key = job.account if group == "account" else job.needs.gpus
        slow[key].append(max(1.0, (wait + job.run_s) / max(job.run_s, 60.0)))
        waits[key].append(wait)
    return jain([statistics.mean(values) for values in slow.values()]), {str(key): percentile(waits[key], 0.5) for key in sorted(waits)}


def print_simulation(run: Simulation, elapsed_s: float) -> None:
    """The cases of the simulation."""
    nodes = len(run.cluster.offers)
    p99 = percentile(run.plans_ms, 0.99)
    report(
        "scheduler_sim",
        f"a plan, {nodes} nodes",
        p99,
        "ms p99",
        against="mark: a round a second",
        against_value=1000.0,
        ratio=1000.0 / p99,
        reach=1.0,
        aim=10.0,
        p50_ms=round(percentile(run.plans_ms, 0.5), 2),
        per_job_p50_ms=round(percentile(run.per_job_ms, 0.5), 3),
        per_job_p99_ms=round(percentile(run.per_job_ms, 0.99), 3),
        look_p50_ms=round(percentile(run.looks_ms, 0.5), 1),
        look_p99_ms=round(percentile(run.looks_ms, 0.99), 1),
        looks=len(run.looks_ms),
        rounds=len(run.plans_ms),
        jobs_ended=len(run.ended),
        nodes_lost=run.lost,
        elapsed_s=round(elapsed_s, 1),
    )
    for group in ("account", "size"):
        index, waits = fairness(run, group)
        shown = waits if group == "size" else {"median": percentile(list(waits.values()), 0.5), "most": max(waits.values(), default=0.0)}
        report(
            "scheduler_sim",
            f"fairness by {group}",
            index,
            "Jain's index",
            against="equal slowdowns",
            against_value=1.0,
            reach=0.8,
            aim=0.95,
            waits_s=shown,
        )
    longest = max(run.longest.values(), default=0.0)
    still = max((run.now - job.at for job in run.queue.values() if job.told is None or job.told["code"] in ("busy", "barred")), default=0.0)
    bound = RUN_MAX_S
    report(
        "scheduler_sim",
        "no starvation",
        max(longest, still),
        "s",
        against="the longest limit, after which a kept node is free",
        against_value=bound,
        ratio=bound / max(longest, still, 1.0),
        reach=1.0,
        aim=4.0,
        longest_by_gpus={str(gpus): wait for gpus, wait in sorted(run.longest.items())},
        still_waiting=len(run.queue),
        longest_still_s=still,
    )
    settled = run.used[len(run.used) // 3 :]
    report(
        "scheduler_sim",
        "utilisation",
        statistics.mean(settled) if settled else 0.0,
        "share of the GPUs that are up",
        against="all of them (more is asked for than there is)",
        against_value=1.0,
        reach=0.85,
        aim=0.95,
        gpus=run.cluster.gpus,
        asked=LOAD,
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=300, help="simulated")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    run = Simulation(options.nodes, options.seconds, options.seed)
    run.run()
    print_simulation(run, time.perf_counter() - began)


if __name__ == "__main__":
    main()
