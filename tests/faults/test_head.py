"""The Ray head dies, in part or whole: another takes its place by itself, and what was asked of the platform is done."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from qubix.cli import runfile
from qubix.cli.processes import strays
from qubix.kernel.errors import QubixError
from tests.faults.under_way import ran, settled_once, under_way, until_all_free
from tests.whole import FINAL, STEPS, Consumer, Whole

pytestmark = pytest.mark.cluster
BACK_S = 240.0
"""From the head's death until the job that ran runs again: four times what is promised, which `make faults` measures; nobody knows what else a machine does
that runs tests."""


@pytest.fixture
def consumer(whole: Whole) -> Iterator[Consumer]:
    """Its jobs end with the test, however that ends: the next one needs their devices."""
    consumer = Consumer(whole)
    yield consumer
    for job in consumer.client.get("/api/jobs", limit=100)["items"]:
        if job["state"] not in FINAL:
            consumer.client.post(f"/api/jobs/{job['id']}/cancel", {})
            consumer.ended(job["id"])


def recorded(whole: Whole) -> dict[str, int]:
    """The pids of run.json: Ray's as `ray/<pid>`."""
    run = runfile.read(whole.data_dir)
    assert run is not None
    return {name: process.pid for name, process in run.processes.items()}


def head_of(whole: Whole) -> list[psutil.Process]:
    """`ray start` of the head, and all that descends from it."""
    pids = [pid for name, pid in recorded(whole).items() if name.startswith("ray/")]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def until_without_strays(whole: Whole) -> None:
    """Nothing is left of the dead head. Looked at until it holds: while processes start, one may not be recorded yet."""
    deadline = time.monotonic() + 60
    while True:
        run = runfile.read(whole.data_dir)
        assert run is not None
        assert run.supervisor is not None
        left = strays(run.supervisor.pid, recorded(whole).values())
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def runs_again(consumer: Consumer, job_id: str, deadline: float) -> dict[str, Any]:
    """Look, through whatever is missing meanwhile, until the job runs in a second attempt."""
    seen: object = None
    while time.monotonic() < deadline:
        with contextlib.suppress(QubixError, httpx.HTTPError):
            seen = job = consumer.job(job_id)
            if job["state"] == "RUNNING" and len(ran(job)) == 2:
                return job
        time.sleep(0.1)
    raise AssertionError(f"{job_id} does not run again within {BACK_S} s: {seen}")


@pytest.mark.parametrize("victim", ["gcs_server", "raylet", "everything"])
def test_a_job_runs_again_by_itself_after_the_death_of_the_ray_head(whole: Whole, consumer: Consumer, victim: str) -> None:
    jobs = [under_way(consumer, steps=400, price_max=10**7) for _ in whole.machines]  # each may go on on either machine
    waiting = consumer.run(STEPS, "1 0.1", wait_s=3600)
    before = recorded(whole)
    deadline = time.monotonic() + BACK_S
    for process in head_of(whole):
        with contextlib.suppress(psutil.NoSuchProcess):
            if victim in ("everything", process.name()):
                os.kill(process.pid, signal.SIGKILL)
    for job_id in jobs:
        job = runs_again(consumer, job_id, deadline)
        first, second = ran(job)
        assert first["state"] in ("LOST", "FAILED")
        assert second["resumed_from"] is not None
    until_without_strays(whole)
    after = recorded(whole)
    assert {name: before[name] for name in ("postgres", "controller")} == {name: after[name] for name in ("postgres", "controller")}
    assert not any(psutil.pid_exists(pid) for name, pid in before.items() if name.startswith("ray/"))
    for machine in whole.machines.values():
        machine.named("raylet/raylet")
        machine.named("ray::NodeAgent")
    for job_id in jobs:
        consumer.client.post(f"/api/jobs/{job_id}/cancel", {})
        settled_once(whole, consumer.ended(job_id))
    kept = consumer.ended(waiting)
    assert kept["state"] == "COMPLETED"
    settled_once(whole, kept)
    until_all_free(whole)
