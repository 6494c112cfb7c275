"""The `ray start` that we run."""

from __future__ import annotations

import os
import subprocess

from qubix.fabric.process import ray_command


def test_it_starts_without_the_web_framework_that_no_node_needs() -> None:
    told = subprocess.run(
        ray_command("--help"), env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True, check=True, timeout=120
    )
    assert "--node-ip-address" in told.stdout
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines() if line.startswith("import time:")}
    assert "ray.scripts.scripts" in loaded
    assert loaded.isdisjoint({"fastapi", "ray.serve.api", "ray.util.state.api"})
