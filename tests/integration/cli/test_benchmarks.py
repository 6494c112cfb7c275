"""Every benchmark starts as `make bench` starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
