"""How long it takes until what a fault stopped goes on, from the database's own moments (and, for the database, from a client's)."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import httpx

from tests.faults.sweep.schedule import LEASE_S, MACHINES, Deed, Fault
from tests.faults.sweep.stage import GPUS_EACH, Stage

LOOK_S: Final = 0.02


@dataclass(frozen=True)
class Promise:
    """A kind of recovery. Args: limit_s, at most; aim_s, better."""

    name: str
    limit_s: float
    aim_s: float


KILLED: Final = Promise("a job runs elsewhere after its node was killed", 25.0, 10.0)
FROZEN: Final = Promise("a job runs elsewhere after its node froze", LEASE_S + 15.0, LEASE_S + 5.0)
HEAD: Final = Promise("a job runs again after the Ray head was killed", 60.0, 30.0)
DATABASE: Final = Promise("a write is answered once PostgreSQL answers again", 5.0, 1.0)
PROMISES: Final = (KILLED, FROZEN, HEAD, DATABASE)


@dataclass(frozen=True)
class Wound:
    """A fault that attempts may have died of. Args: node_id, None for every node."""

    promise: Promise
    at: dt.datetime
    node_id: str | None
    fault: Fault


@dataclass(frozen=True)
class Recovery:
    """One measured time. Args: detail, of what; waited_s, seconds of it in which no device was free."""

    promise: Promise
    seconds: float
    detail: str
    waited_s: float = 0.0


AGAIN: Final = """
SELECT a.job_id::text, a.node_id, a.ended_at, b.created_at, b.running_at, b.number - a.number - 1 AS between, cardinality(b.device_uuids) AS devices
FROM attempts a
CROSS JOIN LATERAL (SELECT * FROM attempts WHERE job_id = a.job_id AND number > a.number AND running_at IS NOT NULL ORDER BY number LIMIT 1) b
WHERE a.running_at < $1 AND a.ended_at > $1 AND a.fault IN ('provider', 'platform') AND ($2::uuid IS NULL OR a.node_id = $2)
  AND a.ended_at < $1 + interval '90 seconds'"""
"""Attempts that ran at the moment of the fault and ended by it, and when the job ran again, be it after others that never ran."""
TAKEN: Final = """
SELECT node_id, created_at, coalesce(ended_at, $3) AS ended_at, cardinality(device_uuids) AS devices FROM attempts
WHERE node_id <> $1 AND created_at < $3 AND coalesce(ended_at, 'infinity') > $2"""
"""Whose devices other attempts had meanwhile."""


def wound_of(fault: Fault, stage: Stage) -> Wound | None:
    """What this fault may wound; call right before it. None for a fault that no attempt dies of."""
    now = dt.datetime.now(dt.UTC)
    if fault.deed is Deed.KILL and fault.target.startswith("head"):
        return Wound(HEAD, now, None, fault)
    if fault.machine is None:
        return None
    node_id = stage.machines[fault.machine].node_id
    if fault.deed is Deed.KILL and fault.target in ("raylet", "machine", "agent"):
        return Wound(KILLED, now, node_id, fault)
    if fault.hold_s > LEASE_S:
        return Wound(FROZEN, now, node_id, fault)
    return None


def measured(database: str, wounds: list[Wound]) -> list[Recovery]:
    """The recoveries from these wounds; those of jobs that never ran again are the oracle's to judge."""

    async def ask() -> list[Recovery]:
        connection = await asyncpg.connect(database)
        try:
            found = []
            for wound in wounds:
                for row in await connection.fetch(AGAIN, wound.at, wound.node_id):
                    taken = await connection.fetch(TAKEN, row["node_id"], row["ended_at"], row["created_at"])
                    waited_s = without_a_device_s(row, taken)
                    job = f"{row['job_id']}, {steps(wound, row, waited_s)}"
                    found.append(recovery(wound, row["running_at"], job, wounds, waited_s))
            return found
        finally:
            await connection.close()

    return asyncio.run(ask())


def steps(wound: Wound, row: Any, waited_s: float) -> str:
    """When, after the fault, the attempt was given up and the next one assigned, and how long no device was free in between."""
    given_up, assigned = ((row[name] - wound.at).total_seconds() for name in ("ended_at", "created_at"))
    waited = f", {waited_s:.1f} s of it without a free device" if waited_s else ""
    between = f", after {row['between']} that never ran" if row["between"] else ""
    return f"given up after {given_up:.1f} s, assigned after {assigned:.1f} s{waited}{between}"


def without_a_device_s(row: Any, taken: list[Any]) -> float:
    """Seconds between both attempts in which the other machines' devices were taken. Args: taken, by which attempts (`TAKEN`).
    At least: a machine that is away, or has a device in quarantine, counts as free."""
    edges = sorted({min(max(at, row["ended_at"]), row["created_at"]) for one in taken for at in (one["created_at"], one["ended_at"])})
    waited_s = 0.0
    for since, until in itertools.pairwise(sorted({row["ended_at"], row["created_at"], *edges})):
        busy: Counter[Any] = Counter()
        for one in taken:
            if one["created_at"] <= since and one["ended_at"] >= until:
                busy[one["node_id"]] += one["devices"]
        full = [devices for devices in busy.values() if GPUS_EACH - devices < row["devices"]]
        waited_s += (until - since).total_seconds() if len(full) >= MACHINES - 1 else 0.0
    return waited_s


def recovery(wound: Wound, running_at: dt.datetime, job: str, wounds: list[Wound], waited_s: float = 0.0) -> Recovery:
    """What a job's return tells of which promise: where the head was killed while it waited, of the head's, counted from then.

    Args: waited_s, seconds without a free device between `wound` and the return.
    """
    heads = [one for one in wounds if one.promise is HEAD and wound.at < one.at < running_at]
    last = max(heads, key=lambda one: one.at, default=wound)
    detail = (
        f"#{wound.fault.number} {wound.fault.name}{'' if last is wound else f', then #{last.fault.number} {last.fault.name}'}, job {job}"
    )
    return Recovery(last.promise, (running_at - last.at).total_seconds(), detail, waited_s if last is wound else 0.0)


def database_recovery(stage: Stage, fault: Fault, write: httpx.Request) -> Recovery:
    """From the server's first answer to the first answered write of a client. Args: write, sent past every link.

    Raises: TimeoutError.
    """
    asyncio.run(_until_it_answers(stage.database_url))
    began = time.monotonic()
    with httpx.Client(timeout=10) as http:
        while time.monotonic() - began < 60:
            try:
                if http.send(write).is_success:
                    return Recovery(DATABASE, time.monotonic() - began, f"#{fault.number} {fault.name}")
            except httpx.TransportError:
                pass
            time.sleep(LOOK_S)
    raise TimeoutError("no write was answered a minute after PostgreSQL answered")


async def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection: Any = await asyncpg.connect(url, timeout=5)
            await connection.execute("SELECT 1")
            await connection.close()
            return
        except (OSError, asyncpg.PostgresError, TimeoutError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(LOOK_S)


def summary(recoveries: list[Recovery]) -> list[dict[str, Any]]:
    """One line per promise: how many, the median, the worst and what it was, and whether the promise was kept."""
    lines = []
    for promise in PROMISES:
        those = sorted((one for one in recoveries if one.promise is promise), key=lambda one: one.seconds)
        times = [one.seconds for one in those]
        if times:
            kept = "aim" if times[-1] <= promise.aim_s else "limit" if times[-1] <= promise.limit_s else "missed"
            lines.append(
                {
                    "recovery": promise.name,
                    "n": len(times),
                    "p50_s": round(times[len(times) // 2], 2),
                    "max_s": round(times[-1], 2),
                    "limit_s": promise.limit_s,
                    "aim_s": promise.aim_s,
                    "met": kept,
                    "worst": those[-1].detail,
                }
            )
    return lines
