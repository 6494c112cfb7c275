"""Every benchmark starts as `make bench` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_tells_its_options(program: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{program}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_bench_runs_each_as_a_module() -> None:
    """As files they would have this folder first on their path, where http.py hides Python's own."""
    assert "python -m benchmarks." in (ROOT / "Makefile").read_text()


def small_run(program: str, *options: str) -> dict[str, Any]:
    """What a short run on a few sockets prints; its figures say nothing, its counts do."""
    line = [sys.executable, "-m", f"benchmarks.{program}", *options]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.postgres
def test_every_heartbeat_that_was_answered_is_in_the_database() -> None:
    found = small_run("heartbeats", "--providers", "20", "--seconds", "5", "--beat-s", "0.25")
    assert found["beats"] > 20
    assert (found["unanswered"], found["answered_and_lost"], found["refused"]) == (0, 0, [])


@pytest.mark.postgres
def test_p_a10_a_crowd_that_comes_back_has_missed_nothing_and_heard_nothing_twice() -> None:
    found = small_run("fanout", "--where", "plain", "--sockets", "40", "--seconds", "1")
    assert (found["sockets"], found["resumed"]) == (40, 20)
    assert (found["missed"], found["doubled"], found["behind"], found["closed"]) == (0, 0, 0, 0)
