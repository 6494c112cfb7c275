"""job.toml of every job, and the sdk outside a sandbox: no process is started here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

LIBRARY = Path(__file__).parents[2] / "jobs_library"
KINDS = sorted(path.parent.name for path in LIBRARY.glob("*/job.toml"))
TYPES = {"text", "integer", "number", "boolean", "input"}


def described(kind: str) -> dict[str, Any]:
    return tomllib.loads((LIBRARY / kind / "job.toml").read_text())


def test_the_promised_jobs_are_there() -> None:
    assert {"mnist", "script", "stable_diffusion"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_complete_and_closed(kind: str) -> None:
    job = described(kind)
    assert set(job) <= {"name", "title", "description", "entry", "params", "inputs", "needs", "duration"}
    assert job["name"] == kind
    assert job["title"]
    assert job["description"]
    assert (LIBRARY / kind / job["entry"]).is_file()
    assert set(job["needs"]) == {"gpus", "vram_bytes", "memory_bytes", "disk_bytes", "cpus"}
    assert all(value >= 0 for value in job["needs"].values())
    assert set(job["duration"]) <= {"default_max_s", "seconds"}
    assert all(seconds > 0 for seconds in job["duration"].get("seconds", {}).values())


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_have_a_type_and_their_defaults_keep_the_limits(kind: str) -> None:
    for name, param in described(kind)["params"].items():
        assert set(param) <= {"type", "default", "required", "min", "max", "description"}, name
        assert param["type"] in TYPES
        assert param["description"]
        assert not ("default" in param and param.get("required"))
        default = param.get("default")
        assert default is None or isinstance(default, str)
        if default is not None and param["type"] in ("integer", "number"):
            assert param["min"] <= float(default) <= param["max"]


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_say_which_names_they_accept(kind: str) -> None:
    for entry in described(kind).get("inputs", {}).values():
        assert set(entry) == {"required", "names", "description"}
        assert entry["names"]


def test_the_seed_figures_of_mnist() -> None:
    assert described("mnist")["duration"]["seconds"] == {"RTX_4090": 120, "RTX_3090": 180}
    assert described("mnist")["params"]["epochs"]["default"] == "5"


def test_the_sdk_imports_the_standard_library_only() -> None:
    code = f"import sys; sys.path[:0] = [{str(LIBRARY)!r}]; import sdk; print(sdk.params, sdk.restored())"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, env={})
    assert result.stdout == "{} None\n"


def test_the_sdk_hands_over_a_copy_and_tells_of_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    code = f"""
import sys; sys.path[:0] = [{str(LIBRARY)!r}]
import sdk
open("state", "w").write("state")
sdk.progress(250, "o" * 300)
sdk.checkpoint("state", 40)
open(sdk.checkpoint_dir / "own", "w").write("own")
sdk.checkpoint(sdk.checkpoint_dir / "own", 60)
sdk.restore_failed("torn")
for number in range(1000):
    sdk.progress(number / 1000)
"""
    environment = {"QUBIX_CONTROL_FD": str(writing), "QUBIX_CHECKPOINT_DIR": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-I", "-c", code], check=True, env=environment, cwd=tmp_path, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as pipe:
        messages = [json.loads(line) for line in pipe]
    assert messages[0] == {"pct": 100.0, "operation": "o" * 200}
    assert messages[1:4] == [{"checkpoint": "1", "pct": 40.0}, {"checkpoint": "2", "pct": 60.0}, {"restore_failed": "torn"}]
    assert len(messages) < 20
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {"1": "state", "2": "own"}
    assert (tmp_path / "state").read_text() == "state"
