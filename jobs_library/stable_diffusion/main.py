"""Paint images from a text with a diffusers pipeline: one PNG per image, progress per step, a checkpoint after each image."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import qubix_job
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging

STEPS_MAX, IMAGES_MAX, SIDE_MAX = 500, 64, 2048


def whole(name: str, default: str, lowest: int, highest: int) -> int:
    """A parameter that is a whole number within limits. Raises: SystemExit."""
    text = qubix_job.params.get(name, default)
    if not text.lstrip("-").isdecimal() or not lowest <= int(text) <= highest:
        sys.exit(f"{name} must be a whole number from {lowest} to {highest}, not {text!r}")
    return int(text)


def model_source() -> str:
    """The pipeline's folder, or the id of a model that this machine has in its cache. Raises: SystemExit."""
    name: str = qubix_job.params.get("model", "")
    if not name:
        sys.exit("the parameter model is missing: name the input that holds the pipeline, or a model of the hub")
    given = qubix_job.input_dir / name
    if given.is_dir():
        return str(_pipeline_folder(given))
    if given.is_file():
        unpacked = qubix_job.checkpoint_dir / "model"
        unpacked.mkdir(parents=True, exist_ok=True)
        if zipfile.is_zipfile(given):
            with zipfile.ZipFile(given) as archive:
                archive.extractall(unpacked)  # noqa: S202  (zipfile keeps names below the folder, and the sandbox has a disk limit)
        else:
            with tarfile.open(given) as packed:
                _extract(packed, unpacked)
        return str(_pipeline_folder(unpacked))
    return name


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack plain files and folders below `folder`. Raises: tarfile.TarError for anything else, or a name that leaves it."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    for member in archive:  # Python before 3.11.4 knows no filters
        if not (member.isreg() or member.isdir()) or not (folder / member.name).resolve().is_relative_to(folder.resolve()):
            raise tarfile.TarError(f"{member.name} is not a plain file below the archive's folder")
        archive.extract(member, folder)


def _pipeline_folder(folder: Path) -> Path:
    """The folder with model_index.json: this one, or the only one below it that has it."""
    for found in (folder, *sorted(folder.iterdir())):
        if (found / "model_index.json").is_file():
            return found
    sys.exit(f"{folder.name} holds no diffusers pipeline (no model_index.json)")


def load(device: torch.device) -> Any:
    """The pipeline on its device. Raises: SystemExit."""
    source = model_source()
    kind: Any = DiffusionPipeline
    try:
        pipeline = kind.from_pretrained(source, torch_dtype=torch.float16 if device.type == "cuda" else torch.float32)
    except OSError as error:
        if not Path(source).is_dir():
            sys.exit(f"the model {source!r} is not on this node, and a sandbox has no network: send the pipeline's folder as an input")
        raise SystemExit(f"the pipeline cannot be loaded: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def main() -> None:
    """Entry point."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    prompt: str = qubix_job.params.get("prompt") or sys.exit("the parameter prompt is missing: say what to paint")
    images, steps = whole("images", "1", 1, IMAGES_MAX), whole("steps", "25", 1, STEPS_MAX)
    width, height, seed = whole("width", "512", 16, SIDE_MAX), whole("height", "512", 16, SIDE_MAX), whole("seed", "1", 0, 2**63 - 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    qubix_job.progress(0, "loading the model")
    pipeline = load(device)
    first = _restored(images)
    for number in range(first, images):

        def report(_pipeline: Any, step: int, _time: Any, values: dict[str, Any], number: int = number) -> dict[str, Any]:
            qubix_job.progress(100 * (number + (step + 1) / (steps + 1)) / images, f"image {number + 1}/{images}, step {step + 1}/{steps}")
            return values

        painted = pipeline(
            prompt,
            negative_prompt=qubix_job.params.get("negative_prompt") or None,
            num_inference_steps=steps,
            guidance_scale=float(qubix_job.params.get("guidance", "7.5")),
            width=width,
            height=height,
            generator=torch.Generator().manual_seed(seed + number),
            callback_on_step_end=report,
        ).images[0]
        painted.save(qubix_job.output_dir / f"image-{number + 1:03}.png")
        print(f"image {number + 1}/{images} painted", flush=True)
        _keep(number + 1, images)
    described = {"prompt": prompt, "steps": steps, "width": width, "height": height, "seed": seed, "images": images, "device": str(device)}
    Path(qubix_job.output_dir, "images.json").write_text(json.dumps(described, indent=1))


def _keep(painted: int, images: int) -> None:
    """Hand over the images so far as a checkpoint."""
    packed = qubix_job.checkpoint_dir / "images.tar"
    packed.parent.mkdir(exist_ok=True)
    with tarfile.open(packed, "w") as archive:
        for number in range(painted):
            name = f"image-{number + 1:03}.png"
            archive.add(qubix_job.output_dir / name, name)
    qubix_job.checkpoint(packed, pct=100 * painted / images)
    qubix_job.progress(100 * painted / images, f"{painted} of {images} images painted")


def _restored(images: int) -> int:
    """Take the images of an earlier attempt. Returns: how many there are."""
    found = qubix_job.restored()
    if found is None:
        return 0
    try:
        with tarfile.open(found) as archive:
            names = archive.getnames()
            if names != [f"image-{number + 1:03}.png" for number in range(len(names))] or len(names) > images:
                raise ValueError("it holds other files")
            _extract(archive, qubix_job.output_dir)
    except (OSError, ValueError, tarfile.TarError) as error:
        qubix_job.restore_failed(str(error))
        return 0
    print(f"resuming after image {len(names)}")
    return len(names)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    main()
