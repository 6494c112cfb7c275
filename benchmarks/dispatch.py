"""From committed funds to the first line out of the sandbox, beside `ray job submit` of an echo on the same cluster.

    python -m benchmarks.dispatch [--jobs 20]

Ours: a job on an idle, warm node; the clock starts when the database commits the funding (`pending_at`, taken inside that
transaction, so a little early) and stops when a WebSocket client of the web layer has the first line of the job's own output.
Ray's: `JobSubmissionClient.submit_job` of `echo hello` until its status is terminal, asked every 10 ms (its own command line
would add the seconds of its imports). One machine, one clock; the two take turns.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from benchmarks._report import report
from benchmarks._stack import Platform, platform
from qubix.cli.client import Client

SCRIPT = "print('hello', flush=True)\n"
TIMEOUT_S = 60.0
JOB: dict[str, Any] = {"kind": "script", "duration_max_s": 60}
WARM_UP = 3


STEPS = ("assigned", "accepted", "running", "printed", "stored", "seen")


def first_line_s(client: Client, socket: ClientConnection, upload_id: str) -> dict[str, float]:
    """Run one job. Returns: seconds from its committed funding to each step; `seen` is its first line at this client."""
    job = client.post("/api/jobs/create", {**JOB, "inputs": [{"name": "main.py", "upload_id": upload_id}]})["job"]
    topic = f"job:{job['id']}"
    socket.send(json.dumps({"t": "subscribe", "topics": [topic]}))
    while True:
        message = json.loads(socket.recv(timeout=TIMEOUT_S))
        if message.get("event") == "JOB_LOG" and message["payload"]["stream"] == "out":
            seen = time.time()
            break
    _await_end(client, job["id"])
    socket.send(json.dumps({"t": "unsubscribe", "topics": [topic]}))
    attempt = client.get(f"/api/jobs/{job['id']}")["attempts"][0]
    line = next(line for line in client.get(f"/api/jobs/{job['id']}/logs")["items"] if line["stream"] == "out")
    begun = _unix(job["pending_at"])
    moments = (attempt["created_at"], attempt["accepted_at"], attempt["running_at"], line["node_at"], line["created_at"])
    return dict(zip(STEPS, [*(_unix(moment) - begun for moment in moments), seen - begun], strict=True))


def _unix(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp()


def _await_end(client: Client, job_id: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while (job := client.get(f"/api/jobs/{job_id}"))["state"] not in {"COMPLETED", "FAILED", "CANCELLED"}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job_id} is {job['state']}")
        time.sleep(0.05)
    if job["state"] != "COMPLETED":
        raise RuntimeError(f"job {job_id}: {job['state']} {job['reason']} {job['reason_detail']}")


def ray_submit_s(ray_jobs: Any) -> float:
    """Run one echo by Ray's own job API. Returns: seconds until it has ended."""
    begun = time.monotonic()
    submission = ray_jobs.submit_job(entrypoint="echo hello")
    while not ray_jobs.get_job_status(submission).is_terminal():
        time.sleep(0.01)
    return time.monotonic() - begun


def ray_job_client(stack: Platform) -> Any:
    """Ray's client on the stack's dashboard, with the cluster's token."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = stack.run.facts["ray_token_file"]
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(stack.run.urls["ray_dashboard"])


def measure(stack: Platform, jobs: int) -> None:
    """Print the case."""
    key = stack.account("consumer")
    script = stack.folder / "main.py"
    Path(script).write_text(SCRIPT)
    with Client(stack.url, key) as client:
        client.post("/api/wallets/faucet", {"amount": 1_000_000_000})
        upload_id = client.upload(script)["id"]
        ray_jobs = ray_job_client(stack)
        headers = {"Authorization": f"Bearer {key}"}
        ours: list[dict[str, float]] = []
        rays: list[float] = []
        with connect(f"ws{stack.url[4:]}/api/ws", additional_headers=headers, max_size=None) as socket:
            for _ in range(WARM_UP):
                first_line_s(client, socket, upload_id)
            ray_submit_s(ray_jobs)
            for n in range(jobs):
                ours.append(first_line_s(client, socket, upload_id))
                if n % 2 == 0:
                    rays.append(ray_submit_s(ray_jobs))
    steps = {step: statistics.median(run[step] for run in ours) * 1000 for step in STEPS}
    ours_ms, ray_ms = steps["seen"], statistics.median(rays) * 1000
    report(
        "dispatch",
        "first line",
        ours_ms,
        "ms",
        against="`ray job submit` of an echo until it has ended",
        against_value=ray_ms,
        ratio=ray_ms / ours_ms,
        reach=5,
        aim=10,
        p90_ms=round(sorted(run["seen"] for run in ours)[int(len(ours) * 0.9)] * 1000, 1),
        steps_ms={step: round(value, 1) for step, value in steps.items()},
        jobs=jobs,
        ray_jobs=len(rays),
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    options = parser.parse_args()
    with platform() as stack:
        provider = stack.account("provider")
        with stack.node("atlas", "RTX_4090:24GB", 3600, provider):
            measure(stack, options.jobs)


if __name__ == "__main__":
    main()
