"""Images of digits: the IDX files of MNIST (plain, gzip, or inside a zip or tar), or the set that scikit-learn ships."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

FILE = re.compile(r"(?:^|/)(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?$")
UNPACKED_MAX_BYTES = 200 << 20
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


@dataclass(frozen=True)
class Images:
    """pixels: n × 1 × 28 × 28, 0 to 1; labels: n digits."""

    pixels: torch.Tensor
    labels: torch.Tensor


def load_idx(source: Path) -> tuple[Images, Images]:
    """The training and the test images of MNIST. source: a folder, one of its files, a zip or a tar. Raises: SystemExit."""
    found: dict[tuple[str, str], bytes] = {}
    for name, read in _members(source):
        match = FILE.search(name)
        if match:
            found[match[1], match[2]] = _unpacked(read(), bool(match[3]))
    missing = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels") if (part, kind) not in found]
    if missing:
        raise SystemExit(f"{source.name} lacks the IDX files {', '.join(missing)}")
    return _images(found["train", "images"], found["train", "labels"]), _images(found["t10k", "images"], found["t10k", "labels"])


def load_digits() -> tuple[Images, Images]:
    """1 797 digits of 8 × 8 pixels, enlarged; every fifth is kept for the test."""
    from sklearn.datasets import load_digits as load

    digits = load()
    small = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    pixels = functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    kept = torch.arange(len(labels)) % 5 == 0
    return Images(pixels[~kept], labels[~kept]), Images(pixels[kept], labels[kept])


def _members(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names and readers of the files in a folder or an archive."""
    if not source.exists():
        raise SystemExit(f"there is no input named {source.name}: send the IDX files and name them in the parameter data")
    if source.is_file() and FILE.search(source.name):
        source = source.parent
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if entry.file_size <= UNPACKED_MAX_BYTES:
                    yield entry.filename, lambda entry=entry: archive.read(entry)  # type: ignore[misc]
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive_tar:
            for member in archive_tar:
                file = archive_tar.extractfile(member) if member.isreg() and member.size <= UNPACKED_MAX_BYTES else None
                if file is not None:
                    yield member.name, file.read
    else:
        raise SystemExit(f"{source.name} is neither a folder, nor an IDX file, nor a zip or tar archive")


def _unpacked(content: bytes, packed: bool) -> bytes:
    if not packed:
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(UNPACKED_MAX_BYTES + 1)
    if len(unpacked) > UNPACKED_MAX_BYTES:
        raise SystemExit("an IDX file is larger than any of MNIST")
    return unpacked


def _images(pixels: bytes, labels: bytes) -> Images:
    magic, count, rows, columns = (int.from_bytes(pixels[at : at + 4], "big") for at in (0, 4, 8, 12))
    if magic != IMAGES_MAGIC or (rows, columns) != (28, 28) or len(pixels) != 16 + count * 784:
        raise SystemExit("the images are not in MNIST's IDX format (28 × 28 unsigned bytes)")
    if int.from_bytes(labels[:4], "big") != LABELS_MAGIC or len(labels) != 8 + count:
        raise SystemExit("the labels are not in MNIST's IDX format, or not as many as the images")
    digits = torch.frombuffer(bytearray(labels[8:]), dtype=torch.uint8).long()
    if count and int(digits.max()) > 9:
        raise SystemExit("a label is larger than 9")
    return Images(torch.frombuffer(bytearray(pixels[16:]), dtype=torch.uint8).reshape(count, 1, 28, 28).float() / 255, digits)
