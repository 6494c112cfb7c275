"""What the tests of faults share: a job that runs, the machine under it, and books that are right at its end."""

from __future__ import annotations

import time
from typing import Any

from tests.whole import STEPS, Consumer, Whole

OPEN_ESCROWS = ("PENDING", "LOCKED", "DISPUTED")


def under_way(consumer: Consumer, steps: int = 30, pause_s: float = 0.5, **extra: Any) -> str:
    """A job that has stored a checkpoint and has some seconds left."""
    job_id = consumer.run(STEPS, f"{steps} {pause_s}", **extra)

    def stored(_: dict[str, Any]) -> bool:
        return any(entry["what"] == "checkpoint" for entry in consumer.client.get(f"/api/jobs/{job_id}/timeline")["items"])

    consumer.until(job_id, stored, 180)
    return job_id


def ran(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Its attempts that ran. A machine under load may not have accepted another in time: nothing ran then, and nothing is paid."""
    return [attempt for attempt in job["attempts"] if attempt["running_at"] is not None]


def machine_of(whole: Whole, job: dict[str, Any]) -> str:
    """The name of the machine that has the job's newest attempt."""
    return next(name for name, machine in whole.machines.items() if machine.node_id == job["attempts"][-1]["node_id"])


def settled_once(whole: Whole, job: dict[str, Any]) -> None:
    """Paid for once, the rest returned, and nothing wrong in the books."""
    receipt = job["receipt"]
    assert receipt["held"] == receipt["charged"] + receipt["refunded"]
    assert receipt["charged"] == sum(attempt["charge"] for attempt in receipt["attempts"])
    assert receipt["escrow_state"] not in OPEN_ESCROWS
    assert whole.audit() == []


def until_all_free(whole: Whole, timeout_s: float = 180) -> None:
    """Wait until every machine is online again and its device free: as a test found them."""
    deadline = time.monotonic() + timeout_s
    for machine in whole.machines.values():
        while True:
            node = whole.provider.get(f"/api/nodes/{machine.node_id}")
            if node["presence"] == "online" and all(offer["gpus_free"] for offer in node["offers"]):
                break
            assert time.monotonic() < deadline, node
            time.sleep(0.25)
