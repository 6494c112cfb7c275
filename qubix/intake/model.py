"""What may be uploaded, decided before a byte is read. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import unicodedata
from typing import Final
from uuid import UUID

from qubix.kernel.errors import Invalid, TooLarge

SIZE_MAX_BYTES: Final = 500 * 1000 * 1000
FILENAME_LENGTH_MAX: Final = 200
UPLOADS_PER_USER_MAX: Final = 5000
ACCEPTED: Final = [
    ".py",
    ".ipynb",
    ".txt",
    ".md",
    ".json",
    ".jsonl",
    ".yaml",
    ".yml",
    ".toml",
    ".csv",
    ".tsv",
    ".parquet",
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".safetensors",
    ".bin",
    ".gz",
    ".zip",
    ".tar",
    ".tgz",
    ".bz2",
    ".xz",
    ".idx",
    ".ubyte",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".wav",
    ".blend",
    ".onnx",
    ".pkl",
    ".sh",
    ".cfg",
    ".ini",
    ".dockerfile",
]
"""Suffixes that are taken; content is never executed or unpacked here."""
BARE_NAMES: Final = ("dockerfile", "requirements", "makefile", "compose")
"""Names that are taken without a suffix."""
UBYTE_ENDINGS: Final = ("-ubyte",)
"""MNIST's IDX files end so, without a dot."""


class TypeRefused(Invalid):
    """The file's type is not taken."""

    code = "type_not_accepted"


class QuotaExceeded(TooLarge):
    """The account's uploads would pass its quota."""

    code = "quota_exceeded"


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """A stored file."""

    id: UUID
    filename: str
    sha256: str
    size: int
    created_at: dt.datetime


def check_filename(name: str) -> str:
    """A file's bare name, in one Unicode form. It is shown and handed to the job, never used as a path on the server.

    Raises: Invalid for an empty or too long name, a path, a control character; TypeRefused, with the accepted types.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not 0 < len(name.encode()) <= FILENAME_LENGTH_MAX:
        raise Invalid(f"A file name has 1 to {FILENAME_LENGTH_MAX} bytes.", next_step="Rename the file.", field="filename")
    if any(character in "/\\\0" or not character.isprintable() for character in name) or name in (".", ".."):
        raise Invalid("A file name has no folders and no control characters.", next_step="Rename the file.", field="filename")
    lower = name.lower()
    suffix = "." + lower.rpartition(".")[2] if "." in lower.lstrip(".") else ""
    if suffix not in ACCEPTED and lower not in BARE_NAMES and not lower.endswith(UBYTE_ENDINGS):
        raise TypeRefused(
            f"Files of the type {suffix or name!r} are not accepted.",
            next_step=f"Accepted are {' '.join(ACCEPTED)}; put anything else into an archive (.zip, .tar.gz).",
            field="filename",
            accepted=list(ACCEPTED),
        )
    return name


def check_size(size: int | None, *, limit: int = SIZE_MAX_BYTES) -> None:
    """Refuse what the sender itself says is too large, before its body is read. None: not said; it is counted while it streams.

    Raises: TooLarge; Invalid for a negative size.
    """
    if size is None:
        return
    if size < 0:
        raise Invalid("A size is never negative.", next_step="Correct Content-Length.", field="size")
    if size > limit:
        raise TooLarge(
            f"The file has {size} bytes; the limit is {limit} bytes ({limit // 10**6} MB).",
            next_step="Split it, or make it smaller.",
            limit=limit,
        )


def check_quota(used: int, files: int, size: int, *, quota: int) -> None:
    """Refuse what would pass the account's quota. Raises: QuotaExceeded."""
    if used + size > quota or files >= UPLOADS_PER_USER_MAX:
        raise QuotaExceeded(
            f"Your uploads hold {used} of {quota} bytes in {files} of {UPLOADS_PER_USER_MAX} files.",
            next_step="Delete uploads that you no longer need.",
            limit=quota,
            used=used,
        )
