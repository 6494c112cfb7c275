"""Whether a backup is whole: every byte of it read again and held against what the manifest says. It asks no database."""

from __future__ import annotations

import re
from pathlib import Path

from qubix.backup import files
from qubix.backup.model import BLOB_LIST, BLOBS, DUMP, MANIFEST, Damaged, Manifest, Part, decoded
from qubix.backup.take import listed
from qubix.kernel.errors import NotFound

TOLD_MAX = 10
"""So many damages are named."""
_LINE = re.compile(r"([0-9a-f]{64}) (\d+)")


def find(named: Path) -> Path:
    """The backup that is meant: the folder itself, or the newest of a folder of backups.

    Raises: NotFound; Damaged for one that was never finished.
    """
    if (named / MANIFEST).is_file():
        return named
    if (named / DUMP).exists():
        raise Damaged(f"{named} has no manifest: it was never finished", next_step="restore another one")
    if known := listed(named):
        return known[-1]
    raise NotFound(f"there is no backup in {named}", next_step="qubix backup FOLDER takes one")


def manifest_of(folder: Path) -> Manifest:
    """The manifest alone, checked. Raises: Damaged."""
    return decoded((folder / MANIFEST).read_text(errors="replace"))


def blobs_of(folder: Path) -> dict[str, int]:
    """The bytes that a backup refers to: size by SHA-256. Raises: Damaged."""
    found = {}
    for line in (folder / BLOB_LIST).read_text(errors="replace").splitlines():
        read = _LINE.fullmatch(line)
        if read is None:
            raise Damaged(f"{BLOB_LIST} cannot be read", next_step="restore another backup")
        found[read[1]] = int(read[2])
    return found


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a backup's bytes lie."""
    return folder.parent / BLOBS / sha256[:2] / sha256


def verify(folder: Path) -> Manifest:
    """Read all of it. Raises: Damaged, naming what is not as it was written."""
    manifest = manifest_of(folder)
    damaged = [part.name for part in manifest.parts if _found(folder / part.name) != part]
    if {part.name for part in manifest.parts} != {DUMP, BLOB_LIST}:
        damaged.append(MANIFEST)
    if not damaged:
        for sha256, size in blobs_of(folder).items():
            if _found(blob_path(folder, sha256)) != Part(sha256, size, sha256):
                damaged.append(f"blob {sha256}")
    if damaged:
        more = f" and {len(damaged) - TOLD_MAX} more" if len(damaged) > TOLD_MAX else ""
        raise Damaged(
            f"{len(damaged)} parts of this backup are not as they were written: {', '.join(damaged[:TOLD_MAX])}{more}",
            next_step="restore another one, or bring these files back from a copy",
            damaged=damaged,
        )
    return manifest


def _found(path: Path) -> Part | None:
    try:
        return files.measured(path)
    except OSError:
        return None
