"""What it takes to start: `ray start` as we run it, the `qubix` command, and another Ray head in the place of a killed one.

    python -m benchmarks.starts [--heads 3] [--profile]

The first two are seconds of processor time until the help is printed, beside Ray's own command and beside the libraries that our command
stands on; `resident_mb` is what the process holds then. `head returns`: seconds from the SIGKILL of the head's GCS until the last of two jobs, one on
each of two nodes, runs again; the mark is 60 s. `cpu_all_s` is what the kernel counted for the whole machine until then, the last time; `--profile` adds
`cpu_s`, by role, and takes a tenth of it itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import psutil

from benchmarks._processes import Processor
from benchmarks._report import report
from benchmarks._stack import Platform, platform
from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.cli.processes import seen
from qubix.fabric.process import ray_command
from qubix.kernel.errors import QubixError

BACK_MAX_S: Final = 60.0
GIVEN_UP_S: Final = 180.0
ROUNDS: Final = 5
SCRIPT: Final = "import time\nprint('runs', flush=True)\ntime.sleep(600)\n"


def started(command: Sequence[str]) -> tuple[float, float]:
    """Run a command that ends by itself. Returns: its seconds of processor time, its largest resident size in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def compare(case: str, ours: Sequence[str], against: str, plain: Sequence[str], reach: float) -> None:
    """Print what two commands cost, taken in turns."""
    runs = [(started(ours), started(plain)) for _ in range(ROUNDS)]
    ours_s, plain_s = (statistics.median(run[side][0] for run in runs) for side in (0, 1))
    ours_mb, plain_mb = (round(statistics.median(run[side][1] for run in runs), 1) for side in (0, 1))
    report(
        "starts",
        case,
        ours_s,
        "s of CPU",
        against=against,
        against_value=plain_s,
        ratio=plain_s / ours_s,
        reach=reach,
        resident_mb=ours_mb,
        against_resident_mb=plain_mb,
    )


def head_returns(stack: Platform, rounds: int, profile: bool) -> None:
    """Print how long two jobs wait for another head."""
    key = stack.account("consumer")
    script = stack.folder / "main.py"
    Path(script).write_text(SCRIPT)
    times: list[float] = []
    with Client(stack.url, key) as client:
        client.post("/api/wallets/faucet", {"amount": 1_000_000_000})
        upload_id = client.upload(script)["id"]
        for _ in range(rounds):
            body = {"kind": "script", "duration_max_s": 600, "inputs": [{"name": "main.py", "upload_id": upload_id}]}
            jobs = [client.post("/api/jobs/create", body)["job"]["id"] for _ in range(2)]
            _until_running(client, jobs, 1)
            with Processor(every_s=0.3 if profile else GIVEN_UP_S) as processor:
                begun = time.monotonic()
                _kill_gcs(stack)
                _until_running(client, jobs, 2)
                times.append(time.monotonic() - begun)
            for job_id in jobs:
                client.post(f"/api/jobs/{job_id}/cancel", {})
            _until_over(client, jobs)
    worst = max(times)
    cpu_s = {role: round(used, 1) for role, used in sorted(processor.seconds.items(), key=lambda one: -one[1]) if used >= 0.5}
    report(
        "starts",
        "head returns",
        worst,
        "s, the worst",
        against="mark",
        against_value=BACK_MAX_S,
        ratio=BACK_MAX_S / worst,
        reach=1.0,
        aim=2.0,
        p50_s=round(statistics.median(times), 1),
        rounds=rounds,
        **({"cpu_s": cpu_s} if profile else {}),
        cpu_all_s=round(processor.machine, 1),
    )


def _kill_gcs(stack: Platform) -> None:
    run = runfile.read(stack.folder)
    assert run is not None
    for name, recorded in run.processes.items():
        if name.startswith("ray/") and seen(recorded.pid) == recorded:
            process = psutil.Process(recorded.pid)
            if process.name() == "gcs_server":
                process.send_signal(signal.SIGKILL)


def _until_running(client: Client, jobs: Sequence[str], attempt: int) -> None:
    """Wait, through whatever is missing meanwhile, until each job runs in its attempt of this number. Raises: TimeoutError."""
    deadline, missing = time.monotonic() + GIVEN_UP_S, set(jobs)
    while missing:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {len(jobs)} jobs do not run")
        for job_id in sorted(missing):
            with contextlib.suppress(QubixError, httpx.HTTPError):
                attempts = client.get(f"/api/jobs/{job_id}")["attempts"]
                if len(attempts) == attempt and attempts[-1]["running_at"] is not None:
                    missing.discard(job_id)
        time.sleep(0.1)


def _until_over(client: Client, jobs: Sequence[str]) -> None:
    deadline = time.monotonic() + GIVEN_UP_S
    while any(client.get(f"/api/jobs/{job_id}")["state"] != "CANCELLED" for job_id in jobs):
        if time.monotonic() > deadline:
            raise TimeoutError("a cancelled job does not end")
        time.sleep(0.1)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    compare("ray start", ray_command("--help"), "Ray's own", [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"], 1.5)
    libraries = [sys.executable, "-c", "import asyncio, httpx, psutil, pydantic_settings, rich.table, typer"]
    compare("qubix --help", [sys.executable, "-m", "qubix.cli.main", "--help"], "the libraries it stands on", libraries, 0.5)
    with platform() as stack:
        provider = stack.account("provider")
        with stack.node("atlas", "RTX_4090:24GB", 3600, provider), stack.node("borea", "RTX_4090:24GB", 3600, provider):
            head_returns(stack, options.heads, options.profile)


if __name__ == "__main__":
    main()
