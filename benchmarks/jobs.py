"""A hundred sandboxed jobs funded at once on two nodes: each ends, none is charged twice, none starves.

    python -m benchmarks.jobs [--jobs 100] [--devices 50] [--profile]

`devices` are declared on each node, so with the defaults all jobs can run side by side. A job burns some CPU, sleeps, and
prints. `start` is counted per job, by the database's clock, from the commit that funded it to the report that its sandbox
runs. Judged besides: every job COMPLETED at its first attempt, in a sandbox; the escrow of each final exactly once; what the
receipts charge = what left the consumers' wallets = what the provider earned; the ledger's audit without a finding. `order` is
Spearman's rank correlation between funding and start (1: first come, first served); `overtaken_max`, by how many jobs that
were funded later one was overtaken at most. `--profile` adds `cpu_s`, the seconds of processor time by role until the last job has
ended, and takes a little of it itself.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks._processes import Held, Processor, by_role
from benchmarks._report import percentile, report
from benchmarks._stack import Platform, platform
from qubix.cli import runfile
from qubix.cli.client import Client

SCRIPT: Final = """
import time
until = time.process_time() + {cpu_s}
while time.process_time() < until:
    pass
print("runs", flush=True)
time.sleep({sleep_s})
"""
CPU_S: Final = 0.02
SLEEP_S: Final = 15.0
START_P95_MAX_S: Final = 10.0
CONSUMERS: Final = 4
SENDERS: Final = 8
FUNDS: Final = 1_000_000_000
PRICE: Final = 3_600_000
"""Per hour: a unit per millisecond, so that the receipts differ."""
BUDGET: Final = 600_000
TIMEOUT_S: Final = 300.0
FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
CHARGES: Final = """
    SELECT count(*) AS escrows,
           count(*) FILTER (WHERE state IN ('RELEASED', 'REFUNDED', 'SPLIT')) AS final,
           sum(paid)::bigint AS paid, sum(funded)::bigint AS funded, sum(refunded)::bigint AS refunded
      FROM escrows"""
ENDS_TWICE: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM events WHERE type = 'ESCROW_UPDATE' AND payload ->> 'state' IN ('RELEASED', 'REFUNDED', 'SPLIT')
        GROUP BY subject_id HAVING count(*) > 1) AS twice"""


@dataclass(frozen=True)
class Start:
    """When one job was funded, and when its sandbox ran and ended; unix seconds of the database."""

    funded: float
    assigned: float
    accepted: float
    running: float
    ended: float


def order_of(starts: list[Start]) -> float:
    """Spearman's rank correlation between the order of funding and the order of starting."""
    funded = sorted(starts, key=lambda start: start.funded)
    ranks = {id(start): n for n, start in enumerate(sorted(starts, key=lambda start: start.running))}
    count = len(starts)
    return 1 - 6 * sum((n - ranks[id(start)]) ** 2 for n, start in enumerate(funded)) / (count * (count**2 - 1)) if count > 1 else 1.0


def overtaken_max(starts: list[Start]) -> int:
    """By how many jobs that were funded later than itself one was overtaken, at most."""
    return max(sum(other.funded > one.funded and other.running < one.running for other in starts) for one in starts)


def at_once_max(starts: list[Start]) -> int:
    """How many ran side by side."""
    changes = sorted([(start.running, 1) for start in starts] + [(start.ended, -1) for start in starts])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


class Run:
    """The jobs of one case, from funding to receipts."""

    def __init__(self, stack: Platform, jobs: int, sleep_s: float) -> None:
        self._stack, self._jobs = stack, jobs
        self._script = stack.folder / "main.py"
        Path(self._script).write_text(SCRIPT.format(cpu_s=CPU_S, sleep_s=sleep_s))
        self._clients = [Client(stack.url, stack.account(f"consumer-{n}")) for n in range(CONSUMERS)]
        self._uploads: list[str] = []
        for client in self._clients:
            client.post("/api/wallets/faucet", {"amount": FUNDS})
            self._uploads.append(client.upload(self._script)["id"])

    def fund_all(self) -> list[tuple[Client, str]]:
        """Ask for all jobs at once. Returns: each with its owner."""
        with concurrent.futures.ThreadPoolExecutor(SENDERS) as pool:
            return list(pool.map(self._fund, range(self._jobs)))

    def _fund(self, number: int) -> tuple[Client, str]:
        client, upload_id = self._clients[number % CONSUMERS], self._uploads[number % CONSUMERS]
        inputs = [{"name": "main.py", "upload_id": upload_id}]
        made = client.post("/api/jobs/create", {"kind": "script", "inputs": inputs, "duration_max_s": 300, "budget": BUDGET})
        return client, str(made["job"]["id"])

    def receipts(self, asked: list[tuple[Client, str]]) -> list[dict[str, Any]]:
        """Each job at its end. Raises: TimeoutError."""
        deadline = time.monotonic() + TIMEOUT_S
        found = []
        for client, job_id in asked:
            while (job := client.get(f"/api/jobs/{job_id}"))["state"] not in FINAL or not job["receipt"]["final"]:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"job {job_id} is {job['state']}: {job['unplaceable']}")
                time.sleep(0.5)
            found.append(job)
        return found

    def spent(self) -> int:
        """What is missing in the consumers' wallets."""
        return sum(FUNDS - int(client.get("/api/wallets/balance")["wallets"][0]["available"]) for client in self._clients)

    def complaints(self, jobs: list[dict[str, Any]]) -> list[str]:
        """Everything that should not be: of the jobs, of their receipts, of the money."""
        found = [f"{job['id']}: {job['state']} {job['reason']} {job['reason_detail']}" for job in jobs if job["state"] != "COMPLETED"]
        found += [f"{job['id']}: {len(job['attempts'])} attempts" for job in jobs if len(job["attempts"]) != 1]
        for job in jobs:
            receipt = job["receipt"]
            if receipt["charged"] != sum(line["charge"] for line in receipt["attempts"]):
                found.append(f"{job['id']}: charged {receipt['charged']}, its lines say otherwise")
            if receipt["held"] != receipt["charged"] + receipt["refunded"]:
                found.append(f"{job['id']}: held {receipt['held']} is not charged + refunded")
        charged = sum(job["receipt"]["charged"] for job in jobs)
        books = asyncio.run(self._books())
        if (books["escrows"], books["final"]) != (len(jobs), len(jobs)):
            found.append(f"{books['final']} of {books['escrows']} escrows are final, {len(jobs)} jobs")
        if not charged == self.spent() == books["paid"] == books["funded"] - books["refunded"]:
            found.append(f"receipts charge {charged}, wallets miss {self.spent()}, escrows paid {books['paid']}")
        if books["twice"]:
            found.append(f"{books['twice']} escrows ended more than once")
        with Client(self._stack.url, self._stack.operator_key) as operator:
            found += map(str, operator.get("/api/audit")["problems"])
        return found

    async def _books(self) -> dict[str, int]:
        connection = await asyncpg.connect(self._stack.database_url("qubix_controller"))
        try:
            return {**dict(await connection.fetchrow(CHARGES)), "twice": await connection.fetchval(ENDS_TWICE)}
        finally:
            await connection.close()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.http.close()


def start_of(job: dict[str, Any]) -> Start:
    """The moments of a job that ended."""
    attempt = job["attempts"][0]
    moments = (job["pending_at"], attempt["created_at"], attempt["accepted_at"], attempt["running_at"], attempt["reported_at"])
    return Start(*(dt.datetime.fromisoformat(moment).timestamp() for moment in moments))


def ask_and_await(
    run: Run, stack: Platform, sleep_s: float, nodes: tuple[str, ...]
) -> tuple[float, Mapping[str, Held], list[dict[str, Any]]]:
    """Ask for the jobs and wait for their ends. Returns: how long it took to ask, what the processes held meanwhile, the jobs."""
    begun = time.monotonic()
    asked = run.fund_all()
    asked_s = time.monotonic() - begun
    time.sleep(0.8 * sleep_s)  # all run by now; before, to read every process's memory would have kept them from starting
    members = [member.supervisor.pid for name in nodes if (member := runfile.read(stack.folder / name)) and member.supervisor]
    held = by_role([stack.supervisor_pid, *members])
    ended = run.receipts(asked)
    return asked_s, held, ended


def _burned(processor: Processor) -> dict[str, Any]:
    dearest = sorted(processor.seconds.items(), key=lambda one: -one[1])
    return {"cpu_s": {role: round(used_s, 1) for role, used_s in dearest if used_s >= 1}, "cpu_all_s": round(processor.machine, 1)}


def measure(stack: Platform, *, jobs: int, devices: int, sleep_s: float, nodes: tuple[str, ...], profile: bool) -> None:
    """Print the case."""
    run = Run(stack, jobs, sleep_s)
    burned = Processor()
    with burned if profile else contextlib.nullcontext():
        asked_s, held, ended = ask_and_await(run, stack, sleep_s, nodes)
    complaints = run.complaints(ended)
    run.close()
    starts = [start_of(job) for job in ended if job["attempts"] and job["attempts"][0]["running_at"]]
    waits = [start.running - start.funded for start in starts]
    p95 = percentile(waits, 0.95)
    report(
        "jobs",
        "at-once",
        p95,
        "s",
        against="the mark: p95 from funded to running",
        against_value=START_P95_MAX_S,
        ratio=START_P95_MAX_S / p95,
        reach=1.0,
        must=not complaints and len(starts) == jobs,
        p50_s=round(statistics.median(waits), 2),
        max_s=round(max(waits), 2),
        steps_p95_s={
            "assigned": round(percentile([start.assigned - start.funded for start in starts], 0.95), 2),
            "accepted": round(percentile([start.accepted - start.assigned for start in starts], 0.95), 2),
            "running": round(percentile([start.running - start.accepted for start in starts], 0.95), 2),
        },
        asked_within_s=round(asked_s, 2),
        funded_within_s=round(max(start.funded for start in starts) - min(start.funded for start in starts), 2),
        running_at_once=at_once_max(starts),
        order=round(order_of(starts), 3),
        overtaken_max=overtaken_max(starts),
        jobs=jobs,
        devices_per_node=devices,
        charged=sum(job["receipt"]["charged"] for job in ended),
        complaints=complaints[:5],
        memory_mb={role: round(one.pss_mb) for role, one in sorted(held.items()) if one.pss_mb >= 30},
        processes={role: int(one.processes) for role, one in sorted(held.items()) if one.processes >= 4},
        **(_burned(burned) if profile else {}),
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--sleep-s", type=float, default=SLEEP_S)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    gpu = f"RTX_4090:24GB:{options.devices}"
    with platform(rate_limits="false", dispute_window_s="2") as stack:
        provider = stack.account("provider")
        with stack.node("atlas", gpu, PRICE, provider), stack.node("boreas", gpu, PRICE, provider):
            nodes = ("atlas", "boreas")
            measure(stack, jobs=options.jobs, devices=options.devices, sleep_s=options.sleep_s, nodes=nodes, profile=options.profile)


if __name__ == "__main__":
    main()
