"""The library's jobs, each in a real sandbox."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Attempt, Bench

pytestmark = pytest.mark.sandbox
LIBRARY = Path(__file__).parents[2] / "jobs_library"


def succeeded(attempt: Attempt) -> Attempt:
    assert attempt.ended is not None
    assert (attempt.ended.exit, attempt.ended.exit_code) == ("exited", 0), attempt.text
    return attempt


def exit_code(attempt: Attempt) -> int | None:
    assert attempt.ended is not None
    return attempt.ended.exit_code


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Attempt:
    """Five epochs on the digits set, as the demo runs them."""
    return succeeded(bench.run("mnist", {}))


def test_mnist_reaches_the_promised_accuracy_with_a_checkpoint_per_epoch(trained: Attempt) -> None:
    metrics = json.loads(trained.artefacts["metrics.json"])
    assert set(trained.artefacts) == {"metrics.json", "model.safetensors"}
    assert metrics["accuracy"] >= 0.95
    assert [epoch["epoch"] for epoch in metrics["history"]] == [1, 2, 3, 4, 5]
    assert [(event.number, event.pct) for event in trained.checkpoints] == [(1, 20), (2, 40), (3, 60), (4, 80), (5, 100)]
    assert trained.progress[0].pct == 0
    assert trained.progress[-1].pct == 100
    assert [report.pct for report in trained.progress] == sorted(report.pct for report in trained.progress)
    assert "epoch 5/5" in trained.text


def test_mnist_resumes_to_the_very_same_model(bench: Bench, trained: Attempt) -> None:
    resumed = succeeded(bench.run("mnist", {}, restore=trained.checkpoint_file(3)))
    assert "resuming after epoch 3" in resumed.text
    assert "epoch 3/5" not in resumed.text
    assert resumed.artefacts == trained.artefacts
    assert not resumed.restore_failed


def test_mnist_tells_of_a_checkpoint_that_it_cannot_use_and_starts_anew(bench: Bench, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(b"PK\x03\x04 torn")
    attempt = succeeded(bench.run("mnist", {"epochs": "1", "passes": "1"}, restore=torn))
    assert len(attempt.restore_failed) == 1
    assert "epoch 1/1" in attempt.text


def idx_files(count: int) -> dict[str, bytes]:
    """Files in MNIST's format: bars whose place tells the digit."""
    files = {}
    for part in ("train", "t10k"):
        images, labels = bytearray(), bytearray()
        for number in range(count):
            digit = number % 10
            picture = bytearray(784)
            for row in range(28):
                picture[row * 28 + digit * 2 + 4] = 255
            images += picture
            labels.append(digit)
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(struct.pack(">IIII", 2051, count, 28, 28) + images)
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">II", 2049, count) + labels
    return files


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(output, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"MNIST/raw/{name}", content)
    else:
        with tarfile.open(fileobj=output, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(f"MNIST/raw/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


def test_mnist_trains_on_idx_files(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mnist.zip").write_bytes(packed("zip", idx_files(200)))
    attempt = succeeded(bench.run("mnist", {"data": "mnist.zip", "epochs": "1"}, inputs={"mnist.zip": tmp_path / "mnist.zip"}))
    assert "200 images to train on, 200 to test on" in attempt.text


@pytest.fixture(scope="module")
def idx() -> Any:
    """The module that reads MNIST, in this process."""
    path = LIBRARY / "mnist" / "idx.py"
    description = importlib.util.spec_from_file_location("qubix_test_idx", path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules["qubix_test_idx"] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        description.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["zip", "tar", "folder", "file"])
def test_idx_files_are_read_from_archives_and_folders(idx: Any, tmp_path: Path, kind: str) -> None:
    for name, content in idx_files(30).items():
        (tmp_path / name).write_bytes(content)
    source = {"folder": tmp_path, "file": tmp_path / "train-images-idx3-ubyte.gz"}.get(kind, tmp_path / "packed" / "archive")
    if kind in ("zip", "tar"):
        source.parent.mkdir()
        source.write_bytes(packed(kind, idx_files(30)))
    train, test = idx.load_idx(source)
    assert train.pixels.shape == test.pixels.shape == (30, 1, 28, 28)
    assert train.labels.tolist() == [number % 10 for number in range(30)]
    assert float(train.pixels.max()) == 1.0
    assert [int(picture[0, 0].argmax()) for picture in train.pixels[:10]] == [4 + 2 * digit for digit in range(10)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda files: {}, "lacks the IDX files"),
        (lambda files: {**files, "t10k-labels-idx1-ubyte": files["t10k-labels-idx1-ubyte"][:-1]}, "not as many as the images"),
        (lambda files: {**files, "t10k-labels-idx1-ubyte": files["t10k-labels-idx1-ubyte"][:-1] + b"\x0b"}, "larger than 9"),
        (lambda files: {**files, "train-images-idx3-ubyte.gz": gzip.compress(b"not idx")}, "not in MNIST's IDX format"),
        (lambda files: {**files, "train-images-idx3-ubyte.gz": gzip.compress(bytes(300 << 20), 1)}, "larger than any"),
    ],
)
def test_broken_idx_files_are_named(idx: Any, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], word: str) -> None:
    (tmp_path / "broken.zip").write_bytes(packed("zip", change(idx_files(20))))
    with pytest.raises(SystemExit, match=word):
        idx.load_idx(tmp_path / "broken.zip")


def test_a_missing_input_is_named(bench: Bench) -> None:
    attempt = bench.run("mnist", {"data": "other"})
    assert exit_code(attempt) == 1
    assert "there is no input named other" in attempt.text


def script(tmp_path: Path, text: str) -> dict[str, Path]:
    (tmp_path / "main.py").write_text(text)
    return {"main.py": tmp_path / "main.py"}


def test_a_script_runs_as_main_with_its_arguments_sdk_and_files(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2\n")
    text = """
import sys, qubix_job, pathlib
from helper import double
assert __name__ == "__main__" and __file__ == "/job/main.py"
print(sys.argv[1:], pathlib.Path("/job/table.csv").read_text().strip(), double(21))
qubix_job.progress(50, "half")
open("result.txt", "w").write("result")
sys.exit(3)
"""
    (tmp_path / "helper.py").write_text("def double(number):\n    return 2 * number\n")
    inputs = {**script(tmp_path, text), "table.csv": tmp_path / "table.csv", "helper.py": tmp_path / "helper.py"}
    attempt = bench.run("script", {"arguments": "--fast 7"}, inputs=inputs)
    assert "['--fast', '7'] 1,2 42" in attempt.text
    assert exit_code(attempt) == 3
    assert attempt.artefacts == {"result.txt": b"result"}
    assert [report.operation for report in attempt.progress] == ["half"]


def test_a_scripts_error_shows_its_own_frames_only(bench: Bench, tmp_path: Path) -> None:
    attempt = bench.run("script", {}, inputs=script(tmp_path, "def inner():\n    return 1 / 0\n\n\ninner()\n"))
    assert exit_code(attempt) == 1
    assert attempt.text.startswith('Traceback (most recent call last):\n  File "/job/main.py", line 5'), attempt.text


def test_a_script_may_start_processes(bench: Bench, tmp_path: Path) -> None:
    text = """
import multiprocessing, subprocess, sys
def square(number):
    return number * number
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(square, range(4)))
    print(subprocess.run([sys.executable, "-c", "import numpy; print('numpy', numpy.arange(3).sum())"], capture_output=True, text=True).stdout)
"""
    attempt = succeeded(bench.run("script", {}, inputs=script(tmp_path, text)))
    assert "fork [0, 1, 4, 9]" in attempt.text
    assert "spawn [0, 1, 4, 9]" in attempt.text
    assert "numpy 3" in attempt.text


def test_data_loader_workers_have_room_in_shared_memory(bench: Bench, tmp_path: Path) -> None:
    text = """
import torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.ones(512, 4096)), batch_size=128, num_workers=2)
print("sum", sum(float(batch.sum()) for batch, in loader))
"""
    assert f"sum {512 * 4096.0}" in succeeded(bench.run("script", {}, inputs=script(tmp_path, text))).text


def test_a_missing_script_is_named(bench: Bench) -> None:
    attempt = bench.run("script", {})
    assert exit_code(attempt) == 1
    assert "there is no main.py among the inputs" in attempt.text


@pytest.fixture(scope="module")
def pipeline(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion with random weights, built from configuration, by a script in the sandbox."""
    folder = tmp_path_factory.mktemp("pipeline")
    text = (Path(__file__).parent / "tiny_pipeline.py").read_text()
    built = succeeded(bench.run("script", {}, inputs=script(folder, text)))
    (folder / "model").mkdir()
    for name, content in built.artefacts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "model"


PAINT = {"prompt": "a cat", "steps": "2", "width": "32", "height": "32", "images": "2"}


def test_stable_diffusion_paints_from_a_folder_with_progress_per_step(bench: Bench, pipeline: Path) -> None:
    inputs = {f"model/{path.relative_to(pipeline)}": path for path in pipeline.rglob("*") if path.is_file()}
    attempt = succeeded(bench.run("stable_diffusion", {**PAINT, "model": "model"}, inputs=inputs))
    assert set(attempt.artefacts) == {"image-001.png", "image-002.png", "images.json"}
    assert attempt.artefacts["image-001.png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert attempt.artefacts["image-001.png"] != attempt.artefacts["image-002.png"]
    assert any("image 1/2, step" in report.operation for report in attempt.progress)
    assert [event.pct for event in attempt.checkpoints] == [50, 100]
    resumed = succeeded(bench.run("stable_diffusion", {**PAINT, "model": "model"}, inputs=inputs, restore=attempt.checkpoint_file(1)))
    assert "resuming after image 1" in resumed.text
    assert resumed.artefacts == attempt.artefacts


def test_stable_diffusion_paints_from_an_archive(bench: Bench, pipeline: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for path in pipeline.rglob("*"):
            archive.write(path, f"tiny/{path.relative_to(pipeline)}")
    attempt = succeeded(
        bench.run("stable_diffusion", {**PAINT, "images": "1", "model": "tiny.zip"}, inputs={"tiny.zip": tmp_path / "tiny.zip"})
    )
    assert "image-001.png" in attempt.artefacts


def test_stable_diffusion_says_that_a_sandbox_cannot_fetch_a_model(bench: Bench) -> None:
    attempt = bench.run("stable_diffusion", {**PAINT, "model": "nobody/no-such-model"})
    assert exit_code(attempt) == 1
    assert "send the pipeline's folder as an input" in attempt.text
