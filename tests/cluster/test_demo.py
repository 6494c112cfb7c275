"""`qubix demo`, as anybody runs it: the stated last line, all of it true, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
TMP = Path("/tmp")


def folders() -> set[Path]:
    return {*TMP.glob("qx-*"), *TMP.glob("pymp-*"), *TMP.glob("qubix-demo-*")}


def left_by(name: str) -> list[str]:
    """Processes whose command line or environment names the demo's folder."""
    found = []
    for process in TMP.parent.glob("proc/[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if name.encode() in told and int(process.name) != os.getpid():
            found.append(f"{process.name} {told[:200]!r}")
    return found


def test_the_demo_holds_and_leaves_nothing(tmp_path: Path) -> None:
    before = folders()
    answer = subprocess.run(
        [sys.executable, "-m", "qubix.cli.main", "demo", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    last = json.loads(answer.stdout.splitlines()[-1])
    assert last.get("failed") is None, last
    assert answer.returncode == 0, answer.stderr
    assert set(last) == {"ok", "seconds", "jobs", "ledger_problems", "escrows_open", "chain"}
    assert (last["ok"], last["ledger_problems"], last["escrows_open"]) == (True, 0, 0)
    assert [job["status"] for job in last["jobs"]] == ["COMPLETED", "COMPLETED", "FAILED", "CANCELLED"]
    for job in last["jobs"]:
        assert set(job) == {"id", "name", "status", "held", "charged", "refunded", "attempts", "artefacts"}
        assert job["held"] == job["charged"] + job["refunded"]
        assert job["charged"] > 0
    lost = last["jobs"][1]["attempts"]
    assert [attempt["status"] for attempt in lost] == ["LOST", "SUCCEEDED"]
    assert lost[0]["node"] != lost[1]["node"]
    assert lost[1]["resumed_from"] >= 2
    for job in last["jobs"][:2]:
        assert {artefact["name"] for artefact in job["artefacts"]} == {"metrics.json", "model.safetensors"}

    chain = last["chain"]
    assert set(chain) == {"funding_tx", "payout_tx", "explorer", "ledger_equals_chain"}
    assert chain["ledger_equals_chain"] is True
    assert [link.rpartition("/")[2] for link in chain["explorer"]] == [chain["funding_tx"], chain["payout_tx"]]

    deadline = time.monotonic() + 10
    while (left := left_by(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != ".cache"] == []
    assert [folder for folder in folders() - before if not left_by(folder.name)] == []  # what somebody uses is another platform's
