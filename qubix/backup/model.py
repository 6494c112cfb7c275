"""What a backup says of itself: its manifest, written last, so that a folder without one is no backup."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from typing import Any, Final

from qubix.kernel.errors import Conflict, Invalid

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DUMP: Final = "database.dump"
BLOB_LIST: Final = "blobs.txt"
BLOBS: Final = "blobs"
"""Beside the backups, shared by all of them: bytes by their SHA-256 are copied once."""


class Damaged(Invalid):
    """A backup that is half, or whose bytes are not those that were written."""

    code = "backup_damaged"


class NotEmpty(Conflict):
    """What would be restored into has something in it already."""

    code = "not_empty"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup: its name in the folder, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """What was backed up.

    Args: taken_at, by the database's clock, when its snapshot was made; revision, of the schema; network, of the ledger's birth (None: no
        ledger yet); position, the last event's; tick, up to which chain money is booked (None: no chain); rows, counts for people to compare;
        parts, every file but the blobs; blobs and blobs_bytes, how many the list names; missing, bytes that rows refer to and whose files
        were gone or damaged when the backup was taken.
    """

    taken_at: dt.datetime
    qubix_version: str
    postgres_version: str
    revision: str
    network: str | None
    position: int
    tick: int | None
    rows: dict[str, int]
    parts: tuple[Part, ...]
    blobs: int
    blobs_bytes: int
    missing: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The folder's name, which sorts by time."""
        at = self.taken_at.astimezone(dt.UTC)
        return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z"

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "taken_at": self.taken_at.isoformat()}

    def encoded(self) -> str:
        """The file's text, with a checksum over all the rest of it."""
        document = self.document()
        return json.dumps({**document, "sha256": _digest(document)}, indent=1) + "\n"


def decoded(text: str) -> Manifest:
    """The manifest in a file's text. Raises: Damaged when it is not what was written; Invalid for a later release's format."""
    try:
        document = json.loads(text)
        said = document.pop("sha256")
        written = document["format"]
    except (ValueError, KeyError, AttributeError, TypeError):
        raise Damaged("the manifest cannot be read", next_step="take another backup") from None
    if _digest(document) != said:
        raise Damaged("the manifest is not as it was written", next_step="take another backup")
    if written != FORMAT:
        raise Invalid(f"this backup has format {written}, and this release reads {FORMAT}", next_step="install the release that made it")
    parts = tuple(Part(**part) for part in document.pop("parts"))
    taken_at = dt.datetime.fromisoformat(document.pop("taken_at"))
    return Manifest(taken_at=taken_at, parts=parts, missing=tuple(document.pop("missing")), **document)


def blob_lines(blobs: dict[str, int]) -> str:
    """The list of blobs: SHA-256 and size, one a line, in the order of their hashes."""
    return "".join(f"{sha256} {size}\n" for sha256, size in sorted(blobs.items()))


def _digest(document: dict[str, Any]) -> str:
    plain = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
