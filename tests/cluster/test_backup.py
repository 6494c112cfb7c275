"""The drill of docs/backup.md: a running platform is backed up, restored into a new folder, brought up there, and says the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix.cli import up
from qubix.cli.client import Client
from tests.whole import STEPS, Consumer, Whole

pytestmark = pytest.mark.cluster


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qubix-drill-") as folder:
        yield Path(folder)


def told(*words: str) -> Any:
    """The document of a command that succeeds."""
    answer = subprocess.run(
        [sys.executable, "-m", "qubix.cli.main", *words, "--json"], capture_output=True, text=True, check=False, timeout=200
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


def seen(client: Client, job_id: str) -> dict[str, Any]:
    """What a user reads of their money, their job, and its bytes."""
    job = client.get(f"/api/jobs/{job_id}")
    artefacts = client.get(f"/api/jobs/{job_id}/artefacts")["items"]
    url = f"/api/jobs/{job_id}/artefacts/{artefacts[0]['name']}"
    return {
        "wallets": client.get("/api/wallets/balance")["wallets"],
        "job": {name: job[name] for name in ("state", "name", "receipt", "progress")},
        "logs": [item["text"] for item in client.get(f"/api/jobs/{job_id}/logs", limit=1000)["items"]],
        "artefacts": artefacts,
        "bytes": client.http.get(url).raise_for_status().content,
    }


def test_p12_a_running_platform_comes_back_from_its_backup_on_another_folder(whole: Whole, place: Path) -> None:
    consumer = Consumer(whole)
    job_id = consumer.run(STEPS, "1 0.1")
    consumer.ended(job_id)
    key = str(consumer.client.http.headers["Authorization"]).removeprefix("Bearer ")
    before = seen(consumer.client, job_id)
    began = time.monotonic()
    backup = told("backup", str(place / "backups"), "--data-dir", str(whole.data_dir))
    deadline = time.monotonic() + 60
    while httpx.get(f"{whole.url}/health/ready", timeout=30).status_code != 200:  # where the disk stands still, it is not
        assert time.monotonic() < deadline
        time.sleep(0.5)
    kept = time.monotonic()
    found = told("restore", backup["folder"], "--data-dir", str(place / "new"), "-y")
    assert (found["sound"], found["problems"], found["missing"], found["payouts"]) == (True, [], [], "none")
    filled = time.monotonic()
    run, operator_key = up.start_detached(place / "new", settings=whole.settings, owner=os.getpid())
    stands = time.monotonic()
    print(f"backup {kept - began:.1f} s, restore {filled - kept:.1f} s, up {stands - filled:.1f} s, at a load of {os.getloadavg()[0]:.1f}")
    try:
        assert operator_key is None, "the operators are those of the backup"
        with Client(run.urls["application"], key) as again, Client(run.urls["application"], whole.operator_key) as operator:
            assert seen(again, job_id) == before
            assert operator.get("/api/audit")["problems"] == []
    finally:
        up.stop(place / "new")
