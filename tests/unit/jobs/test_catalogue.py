"""The job library's descriptions, and what a consumer may hand to a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qubix.jobs.catalogue import Catalogue, LibraryJob, load, read_job
from qubix.kernel.errors import Invalid

TEXT = """
title = "T"
entry = "main.py"
[params.epochs]
type = "integer"
default = "5"
min = 1
max = 10
[params.rate]
type = "number"
required = true
min = 0.1
max = 1
[params.fast]
type = "boolean"
default = false
[params.mode]
type = "choice"
default = "a"
choices = ["a", "b"]
[params.note]
type = "text"
length_max = 5
[params.file]
type = "input"
default = ""
[inputs.some]
required = true
names = ["*.csv", "main.py"]
size_max_bytes = 100
[needs]
gpus = 2
vram_bytes = 10
memory_bytes = 1000
cpus = 1.5
[duration]
default_max_s = 60
seconds = { RTX_4090 = 5 }
"""


@pytest.fixture
def job(tmp_path: Path) -> LibraryJob:
    return written(tmp_path, TEXT)


def written(folder: Path, text: str) -> LibraryJob:
    (folder / "demo").mkdir()
    (folder / "demo" / "job.toml").write_text(text)
    return read_job(folder / "demo" / "job.toml")


def test_a_description_is_read_whole(job: LibraryJob) -> None:
    assert (job.name, job.needs.gpus, job.needs.ram_bytes, job.limits.memory_bytes, job.limits.cpus) == ("demo", 2, 1000, 1000, 1.5)
    assert (job.duration_max_s, dict(job.seconds)) == (60, {"RTX_4090": 5.0})


def test_parameters_become_strings_with_their_defaults(job: LibraryJob) -> None:
    assert job.read_params({"rate": 0.5, "epochs": 3}) == {"epochs": "3", "rate": "0.5", "fast": "false", "mode": "a", "file": ""}
    assert job.read_params({"rate": "1", "fast": "True", "note": "hi"})["fast"] == "true"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "params.rate"),
        ({"rate": 2}, "params.rate"),
        ({"rate": "nan"}, "params.rate"),
        ({"rate": 1, "epochs": 0}, "params.epochs"),
        ({"rate": 1, "epochs": 1.5}, "params.epochs"),
        ({"rate": 1, "epochs": True}, "params.epochs"),
        ({"rate": 1, "epochs": "9" * 50}, "params.epochs"),
        ({"rate": 1, "mode": "c"}, "params.mode"),
        ({"rate": 1, "note": "too long"}, "params.note"),
        ({"rate": 1, "note": "\0"}, "params.note"),
        ({"rate": 1, "fast": "maybe"}, "params.fast"),
        ({"rate": 1, "unknown": 1}, "params.unknown"),
        ({"rate": 1, "file": "absent.csv"}, "params.file"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_field_and_what_is_allowed(job: LibraryJob, params: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        job.read_params(params, ["here.csv"])
    assert refused.value.extra["field"] == field
    assert refused.value.next_step


@pytest.mark.parametrize(
    "inputs",
    [[], [("x.bin", 1)], [("a.csv", 101)], [("a.csv", 1), ("a.csv", 1)], [("../a.csv", 1)], [("a.csv", 1), ("b.exe", 1)]],
)
def test_wrong_inputs_are_refused(job: LibraryJob, inputs: list[tuple[str, int]]) -> None:
    with pytest.raises(Invalid) as refused:
        job.check_inputs(inputs)
    assert refused.value.extra["field"] == "inputs"


def test_fitting_inputs_are_taken(job: LibraryJob) -> None:
    job.check_inputs([("a.csv", 100), ("main.py", 1)])
    assert job.read_params({"rate": 1, "file": "a.csv"}, ["a.csv"])["file"] == "a.csv"


def test_wishes_go_over_the_jobs_needs_and_limits(job: LibraryJob) -> None:
    needs, limits = job.needs_with({"gpus": 1, "memory_bytes": 5000, "gpu_models": ["H100"], "regions": None})
    assert (needs.gpus, needs.vram_bytes, needs.ram_bytes, needs.gpu_models) == (1, 10, 5000, ("H100",))
    assert (limits.memory_bytes, limits.cpus) == (5000, 1.5)
    for wrong in ({"nonsense": 1}, {"memory_bytes": -1}, {"cpus": True}, {"gpus": 0}):
        with pytest.raises(Invalid):
            job.needs_with(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "title = 1\n[params.a]\ntype = 'what'",
        "title = 'T'\n[params.a]\ntype = 'integer'\ndefault = 'x'",
        "title = 'T'\n[needs]\nnonsense = 1",
        "title = 'T'\n[params.a]\ntype = 'integer'\nnonsense = 1",
        "title = ",
    ],
)
def test_a_broken_description_stops_the_start_and_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid, match=r"demo/job\.toml"):
        written(tmp_path, text)


def test_the_installed_library_is_sound() -> None:
    found = load(Path(__file__).parents[3] / "jobs_library")
    assert {"mnist", "script"} <= {job.name for job in found}


def test_an_unknown_job_is_refused_with_the_names_that_exist(job: LibraryJob) -> None:
    with pytest.raises(Invalid) as refused:
        Catalogue([job]).get("other")
    assert refused.value.extra["allowed"] == ["demo"]
