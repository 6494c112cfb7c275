"""What every `qubix` command has to load before it does anything."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"sqlalchemy", "ray", "fastapi", "numpy", "torch"}
"""Each takes longer to load than most commands take to do their work; the few that need one load it themselves."""


def test_no_command_loads_the_database_ray_or_the_web_framework_that_it_may_not_need() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, qubix.cli.main; print(*sys.modules)"], capture_output=True, text=True, check=True, timeout=60
    )
    assert HEAVY & set(told.stdout.split()) == set()
