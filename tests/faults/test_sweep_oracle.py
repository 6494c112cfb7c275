"""The sweep's oracle sees what it is there to see: a world that is right, and each way in which it can be wrong."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.sweep.oracle import Oracle
from tests.faults.sweep.record import AcknowledgedJob, Record

T0 = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
Rows = dict[str, list[Any]]


def attempt(number: int, state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"a{number}",
        "job_id": "j",
        "number": number,
        "fence": number,
        "state": state,
        "rate": 3_600_000,
        "metered_ms": 1000,
        "charge": 1000,
        "created_at": T0 + dt.timedelta(seconds=10 * number),
        "running_at": T0 + dt.timedelta(seconds=10 * number + 1),
        "ended_at": T0 + dt.timedelta(seconds=10 * number + 3),
        "fault": "none",
        "limit_ms": 60_000,
        **more,
    }


def right() -> Rows:
    """A job that lost its first attempt after a checkpoint, and succeeded at the second."""
    return {
        "jobs": [{"id": "j", "owner_id": "ann", "state": "COMPLETED", "fence": 2, "ceiling": 5000}],
        "attempts": [attempt(1, "LOST", fault="provider", charge=800, metered_ms=2000), attempt(2, "SUCCEEDED")],
        "escrows": [{"id": "j", "state": "RELEASED", "funded": 5000, "paid": 1800, "refunded": 3200, "account_id": 7, "funded_at": T0}],
        "earnings": [
            {"escrow_id": "j", "line": "a1", "gross": 800, "state": "PAID"},
            {"escrow_id": "j", "line": "a2", "gross": 1000, "state": "PAID"},
        ],
        "out": [{"debit_id": 7, "act": act, "amount": amount} for act, amount in (("pay", 800), ("pay", 1000), ("rest", 3200))],
        "checkpoints": [{"attempt_id": "a1", "ran_ms": 800}],
        "leases": [],
        "wallets": [
            {"owner_id": "ann", "posted": 8200, "held": 0},
            {"owner_id": "prov", "posted": 1800, "held": 0},
        ],
        "deposits": [{"user_id": "ann", "amount": 10_000}],
        "holds": [],
        "events": [
            {"position": n + 1, "type": kind, "topics": [], "job_id": "j"} for n, kind in enumerate(("JOB_PROGRESS", "JOB_COMPLETED"))
        ],
    }


def judged(rows: Rows) -> list[str]:
    record = Record()
    record.consumers.append("ann")
    record.add(AcknowledgedJob("j", "ann", "short", {"state": "COMPLETED"}, 100.0, True))
    oracle = Oracle("", "", record, "prov")
    oracle._acknowledged, oracle._ended = list(record.jobs), {"j": "COMPLETED"}
    oracle._jobs(rows, True)
    oracle._money(rows)
    oracle._rest(rows)
    return oracle._wrong


def test_a_world_that_is_right_has_nothing_wrong() -> None:
    assert judged(right()) == []


def _set(table: str, row: int, **members: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table][row].update(members)


def _add(table: str, row: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(row)


def _drop(table: str, row: int) -> Callable[[Rows], None]:
    return lambda rows: rows[table].pop(row) and None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda rows: [rows[table].clear() for table in ("jobs", "attempts", "escrows", "earnings", "out")], "is not there"),
        (_add("jobs", {"id": "k", "owner_id": "ann", "state": "PENDING", "fence": 0, "ceiling": 1}), "never acknowledged"),
        (_set("jobs", 0, owner_id="bob"), "belongs to another"),
        (_set("jobs", 0, state="FAILED"), "was COMPLETED for its owner"),
        (_set("attempts", 1, state="RUNNING"), "1 live attempts"),
        (_set("attempts", 1, fence=1), "has the fences"),
        (_set("attempts", 1, number=3), "gaps in its attempts"),
        (_set("escrows", 0, funded_at=T0 + dt.timedelta(hours=1)), "before its money"),
        (_set("attempts", 0, state="SUCCEEDED", fault="none"), "is COMPLETED with"),
        (_add("out", {"debit_id": 7, "act": "pay", "amount": 1000}), "was funded by"),
        (_add("earnings", {"escrow_id": "j", "line": "a2", "gross": 1000, "state": "PAID"}), "paid a line twice"),
        (_set("earnings", 0, line="elsewhere"), "its attempts cost"),
        (_set("attempts", 1, charge=1001), "costs 1001"),
        (_set("attempts", 1, metered_ms=2500), "metered 2500"),
        (_set("checkpoints", 0, ran_ms=700), "was lost after saving 700 ms"),
        (_set("escrows", 0, state="LOCKED"), "and paid already"),
        (_set("wallets", 0, posted=8201), "spent 1800"),
        (_set("wallets", 1, posted=1799), "the provider has"),
        (_set("earnings", 1, state="PENDING"), "is not paid"),
        (_add("leases", {"holder_id": "a2", "state": "SUCCEEDED"}), "leases of ended attempts"),
        (_set("events", 1, position=None), "not published"),
        (_set("events", 1, position=3), "gaps"),
        (_drop("events", 1), "told 0 times"),
        (_add("events", {"position": 3, "type": "JOB_COMPLETED", "topics": [], "job_id": "j"}), "told 2 times"),
    ],
)
def test_each_wrong_is_seen(wrong: Callable[[Rows], None], said: str) -> None:
    rows = copy.deepcopy(right())
    if said == "never acknowledged":
        rows["escrows"].append({"id": "k", "state": "LOCKED", "funded": 1, "paid": 0, "refunded": 0, "account_id": 8, "funded_at": T0})
    wrong(rows)
    assert any(said in line for line in judged(rows)), judged(rows)
