"""The `ray start` that we run."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from qubix.fabric.head import Head, head_answers, launch_head, start_head
from qubix.fabric.process import ray_command
from qubix.fabric.ray_start import NICENESS


def test_it_starts_without_the_web_framework_that_no_node_needs() -> None:
    told = subprocess.run(
        ray_command("--help"), env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True, check=True, timeout=120
    )
    assert "--node-ip-address" in told.stdout
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines() if line.startswith("import time:")}
    assert "ray.scripts.scripts" in loaded
    assert loaded.isdisjoint({"fastapi", "ray.serve.api", "ray.util.state.api"})


def test_it_runs_in_a_folder_with_a_ray_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise SystemExit('not this one')")
    told = subprocess.run(ray_command("--help"), cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert "--node-ip-address" in told.stdout


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="qh-", dir="/tmp") as folder:
        head = start_head(Path(folder))
        yield head
        head.stop()


def parts(head: Head) -> dict[str, psutil.Process]:
    """The head's processes, by a word of their command lines."""
    words = ("gcs_server", "raylet/raylet", "monitor.py", "dashboard/dashboard.py", "ray.util.client.server")
    lines = [(process, " ".join(process.cmdline())) for process in psutil.Process(head.process.pid).children(recursive=True)]
    return {word: process for process, line in lines for word in words if word in line}


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Look until it holds. Raises: AssertionError."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shows(head: Head) -> bool:
    """Whether its dashboard takes connections now."""
    return head_answers(f"127.0.0.1:{head.where.dashboard_port}")


@pytest.mark.cluster
def test_the_dashboard_comes_after_the_raylet_that_everything_else_waits_for(head: Head) -> None:
    until(lambda: shows(head))
    found = parts(head)
    assert found["raylet/raylet"].create_time() < found["dashboard/dashboard.py"].create_time()


@pytest.mark.cluster
def test_the_dashboard_gives_way_to_what_carries_jobs(head: Head) -> None:
    until(lambda: shows(head))
    found = parts(head)
    raylet = found["raylet/raylet"].nice()
    assert found["gcs_server"].nice() == raylet
    assert found["dashboard/dashboard.py"].nice() == found["monitor.py"].nice() == min(19, raylet + NICENESS)


@pytest.mark.cluster
@pytest.mark.parametrize("victim", ["raylet/raylet", "dashboard/dashboard.py"])
def test_what_dies_before_the_dashboard_answers_ends_the_head(victim: str) -> None:
    with tempfile.TemporaryDirectory(prefix="qh-", dir="/tmp") as folder:
        head = launch_head(Path(folder))
        try:
            until(lambda: "dashboard/dashboard.py" in parts(head))
            parts(head)["dashboard/dashboard.py"].suspend()
            until(lambda: "Ray runtime started." in head.process.log.read_text())
            assert not shows(head)
            parts(head)[victim].kill()
            until(lambda: not head.alive(), timeout_s=20.0)
        finally:
            head.stop(1.0)


@pytest.mark.cluster
def test_nothing_listens_for_ray_clients(head: Head) -> None:
    assert "ray.util.client.server" not in parts(head)
