"""The disk that an attempt may fill: as root a small file system of its own, which the kernel bounds; else a watched folder.

The file system is a copy of a template made once per size (the copy is sparse: 1 ms). The stage mounts it where only the
sandbox sees it, from a file without a name: when the last process and the runner are gone, nothing is left of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

FILES_MAX: Final = 20_000
BYTES_MIN: Final = 8 << 20
OVERHEAD_BYTES: Final = 8 << 20
"""What the file system itself needs, besides a part of the size."""
NEARLY_FULL_BYTES: Final = 2 << 20


def template(base: Path, size: int) -> Path | None:
    """An empty file system for `size` bytes of files; None: this machine cannot make one. As root only."""
    make = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if make is None or size < BYTES_MIN:
        return None
    kept = base / "volumes" / f"{size}.ext4"
    if kept.exists():
        return kept
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    with open(part, "wb") as file:
        file.truncate((size + size // 64 + OVERHEAD_BYTES) & ~0xFFFF)
    options = ["-q", "-F", "-O", "^has_journal", "-m", "0", "-N", str(FILES_MAX), "-E", "nodiscard,lazy_itable_init=1"]
    made = subprocess.run([make, *options, str(part)], capture_output=True, check=False)
    if made.returncode != 0:
        part.unlink()
        return None
    part.rename(kept)
    return kept


def full(descriptor: int) -> bool:
    """Whether the file system of a folder has no room left."""
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize < NEARLY_FULL_BYTES or found.f_favail == 0
