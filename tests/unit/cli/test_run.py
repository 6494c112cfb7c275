"""What a run asks for, from flags, from job.toml, from files."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import typer

from qubix.cli.offers import grouped
from qubix.cli.quantities import duration_s, pairs, size_bytes, spoken
from qubix.cli.run import next_after_end, packed, read_request
from qubix.kernel.errors import Invalid
from tests.unit.cli.platform import JOB_ID, attempt, job


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("512MiB", 512 << 20), ("1000B", 1000), ("24", 24 * 10**9), ("1.5GB", 1_500_000_000), ("2 tb", 2 * 10**12)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15min", 900), ("2h", 7200), ("1d", 86400), ("1.5h", 5400)])
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "GB", "24XB", "-1GB", "1e9"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        size_bytes(text)


def test_a_duration_is_spoken_in_words() -> None:
    assert spoken(330) == "5 min 30 s"
    assert spoken(0) == "0 s"
    assert spoken(3600) == "1 h"


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(typer.BadParameter):
        pairs(["epochs"])


def test_a_library_job_goes_by_its_name() -> None:
    request = read_request("mnist", {"epochs": "5"}, {"gpu_models": ["RTX_4090"]})
    assert request.body == {"kind": "mnist", "params": {"epochs": "5"}, "needs": {"gpu_models": ["RTX_4090"]}}
    assert request.files == {}


def test_a_script_becomes_the_script_jobs_input(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)")
    request = read_request(str(script), {}, {})
    assert request.body["kind"] == "script"
    assert request.files == {"main.py": script}


def test_needs_come_from_the_job_toml_beside_the_script_and_flags_win(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)")
    (tmp_path / "job.toml").write_text("[needs]\ngpus = 2\nvram_bytes = 1000\n[params]\nseed = 7\n")
    request = read_request(str(script), {}, {"gpus": 1})
    assert request.body["needs"] == {"gpus": 1, "vram_bytes": 1000}
    assert request.body["params"] == {"seed": "7"}


def test_a_broken_job_toml_is_named(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)")
    (tmp_path / "job.toml").write_text("[needs")
    with pytest.raises(Invalid, match=r"job\.toml"):
        read_request(str(script), {}, {})


def test_a_file_that_is_missing_is_not_taken_for_a_library_job() -> None:
    with pytest.raises(Invalid, match="there is no file"):
        read_request("trian.py", {}, {})


def test_a_parameter_that_names_a_file_sends_it_as_an_input(tmp_path: Path) -> None:
    images = tmp_path / "images.zip"
    images.write_bytes(b"1")
    request = read_request("mnist", {"data": str(images), "epochs": "1"}, {})
    assert request.files == {"images.zip": images}
    assert request.body["params"] == {"data": "images.zip", "epochs": "1"}


def test_a_folder_is_sent_as_one_archive(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(b"123")
    request = read_request("mnist", {"data": str(folder)}, {})
    assert request.body["params"] == {"data": "mnist.tar"}
    with packed(request.files["mnist.tar"]) as archive, tarfile.open(archive) as tar:
        assert "mnist/train-images-idx3-ubyte" in tar.getnames()
    assert not archive.exists()


def test_offers_group_by_gpu_with_their_span_of_prices() -> None:
    items = [
        {"model": "RTX_4090", "provider": "a", "price_per_hour": 100, "gpus_free": 1},
        {"model": "RTX_4090", "provider": "b", "price_per_hour": 80, "gpus_free": 2},
        {"model": "RTX_3090", "provider": "b", "price_per_hour": 50, "gpus_free": 0},
    ]
    assert grouped(items, ["gpu"]) == [
        {"gpu": "RTX_3090", "offers": 1, "free": 0, "price_min": 50, "price_max": 50},
        {"gpu": "RTX_4090", "offers": 2, "free": 3, "price_min": 80, "price_max": 100},
    ]
    assert len(grouped(items, ["gpu", "provider"])) == 3


@pytest.mark.parametrize(
    ("ended", "first"),
    [
        (job("FAILED", attempt(1, "atlas", "FAILED")), f"qubix logs {JOB_ID}"),
        (job("COMPLETED", attempt(1, "atlas", "SUCCEEDED")), f"qubix artefacts {JOB_ID} --download ."),
        (job("FAILED"), f"qubix show {JOB_ID}"),
    ],
)
def test_after_its_end_a_job_leads_first_to_what_there_is_to_see(ended: dict[str, Any], first: str) -> None:
    assert next_after_end(ended)[0] == first
