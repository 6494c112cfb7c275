"""A job under way, and the death or the sleep of a process: it ends once, is paid once, and the books are right."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import httpx
import psutil
import pytest

from qubix.kernel.errors import QubixError
from tests.faults.under_way import machine_of, ran, settled_once, under_way
from tests.whole import Consumer, Whole

pytestmark = pytest.mark.cluster
WEB_FROZEN_S = 40
"""Longer than any lease, and than Serve waits for a health check."""


@pytest.fixture
def consumer(whole: Whole) -> Consumer:
    return Consumer(whole)


@pytest.mark.parametrize("process", ["controller", "fabric"])
def test_a_job_runs_on_in_one_attempt_while_a_platform_process_is_killed_and_comes_back(
    whole: Whole, consumer: Consumer, process: str
) -> None:
    job_id = under_way(consumer)
    killed = whole.pid_of(process)
    os.kill(killed, signal.SIGKILL)
    job = consumer.ended(job_id)
    assert job["state"] == "COMPLETED"
    assert [attempt["state"] for attempt in ran(job)] == ["SUCCEEDED"]
    assert consumer.lines(job_id)[-1] == "step 30"
    settled_once(whole, job)
    assert whole.pid_of(process) != killed


def test_a_job_whose_agent_is_killed_is_resumed_from_its_checkpoint(whole: Whole, consumer: Consumer) -> None:
    job_id = under_way(consumer)
    machine = whole.machines[machine_of(whole, consumer.job(job_id))]
    sandboxes = machine.programs("bwrap")
    assert sandboxes
    machine.named("ray::NodeAgent").kill()
    gone, alive = psutil.wait_procs(sandboxes, timeout=60)
    assert not alive, gone
    job = consumer.ended(job_id)
    assert job["state"] == "COMPLETED"
    first, second = ran(job)
    assert first["fault"] in ("provider", "platform")
    assert second["state"] == "SUCCEEDED"
    assert second["resumed_from"] is not None
    settled_once(whole, job)


def test_a_machine_frozen_beyond_its_lease_is_fenced_and_its_device_stays_shut_until_it_is_free(whole: Whole, consumer: Consumer) -> None:
    job_id = under_way(consumer, steps=40)
    name = machine_of(whole, consumer.job(job_id))
    frozen = whole.machines[name]
    tree = frozen.tree()
    try:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        first, second = ran(consumer.until(job_id, lambda job: len(ran(job)) == 2, 60))
        assert first["state"] == "LOST"
        assert second["node_id"] != frozen.node_id
        assert second["resumed_from"] is not None
        assert whole.provider.get(f"/api/nodes/{frozen.node_id}")["offers"][0]["gpus_free"] == 0
    finally:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    job = consumer.ended(job_id)
    assert [attempt["state"] for attempt in ran(job)] == ["LOST", "SUCCEEDED"]
    assert job["state"] == "COMPLETED"
    lost = job["receipt"]["attempts"][0]
    assert lost["charge"] <= lost["rate"] * lost["metered_ms"] // 3_600_000
    settled_once(whole, job)
    deadline = time.monotonic() + 240
    while not any(offer["node_id"] == frozen.node_id for offer in consumer.client.get("/api/gpus/search", available="true")["items"]):
        assert time.monotonic() < deadline, "the frozen machine's device never came back"
        time.sleep(0.25)


def test_a_web_layer_that_is_frozen_beyond_every_lease_costs_no_job_and_no_provider_its_name(whole: Whole, consumer: Consumer) -> None:
    job_id = under_way(consumer, steps=40)
    replicas = whole.ray_processes("ServeReplica")
    assert replicas
    try:
        for process in replicas:
            process.suspend()
        time.sleep(WEB_FROZEN_S)
    finally:
        for process in replicas:
            with contextlib.suppress(psutil.NoSuchProcess):  # Serve may have replaced it
                process.resume()
    deadline = time.monotonic() + 240
    while True:
        try:
            job = consumer.ended(job_id)
            break
        except (QubixError, httpx.HTTPError):
            assert time.monotonic() < deadline, "the web layer did not come back"
            time.sleep(0.5)
    assert job["state"] == "COMPLETED"
    assert {attempt["fault"] for attempt in job["attempts"]} <= {"none", "platform"}
    settled_once(whole, job)
