"""Files of a backup on disk: written whole or not at all, never over another, readable by their owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qubix.backup.model import Part
from qubix.kernel.errors import Conflict

CHUNK_BYTES: Final = 1 << 20


def measured(path: Path) -> Part:
    """Size and SHA-256 of a file as it lies there. Raises: OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return Part(path.name, size, digest.hexdigest())


def copy(source: Path, target: Path, sha256: str) -> bool:
    """Copy bytes by their hash, flushed, under their name only when they are what the name says.

    Returns: False, and nothing was left, where the source is gone or has other bytes. Raises: OSError (disk full).
    """
    target.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # parents that mkdir makes itself are open to others
    target.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".")
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as written:
            try:
                read = source.open("rb")
            except FileNotFoundError:
                return False
            with read:
                while chunk := read.read(CHUNK_BYTES):
                    digest.update(chunk)
                    written.write(chunk)
            flush(written.fileno())
        if digest.hexdigest() != sha256:
            return False
        os.replace(name, target)
        flush_folder(target.parent)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def write(path: Path, text: str) -> None:
    """Write a new file of mode 0600, flushed. Raises: FileExistsError."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        flush(file.fileno())


def flush(descriptor: int) -> None:
    """Wait until what was written is on disk."""
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Own the folder of backups for the duration. Raises: Conflict when another backup is being taken into it."""
    with os.fdopen(os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another backup is being taken into {folder}", next_step="wait for it") from None
        yield
