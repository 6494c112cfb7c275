"""Bytes by their SHA-256, as files on disk: `<root>/ab/abcdef…`. Streams in and out, constant memory.

The rows that say who refers to a blob live in the database (qubix.jobs.store); a file is removed only when no row has
referred to it for a day, under its row's lock. Whoever puts bytes records them under that same lock and then confirms that
the file is still there, so a put that raced a removal is told to send again and no row is left without its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

from qubix.kernel.errors import Invalid, NotFound, TooLarge, Unavailable

CHUNK_BYTES: Final = 1 << 20
UNREFERENCED_KEEP_S: Final = 86_400
FREE_MIN_BYTES: Final = 64 << 20
"""With less room than this the store says that it cannot write, before it cannot."""
FOLDERS: Final = 256
_HEX: Final = frozenset("0123456789abcdef")


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes: their SHA-256 in hexadecimal, and how many."""

    sha256: str
    size: int


class BlobStore:
    """Content-addressed files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"

    async def put(self, stream: AsyncIterable[bytes], *, size_max_bytes: int, sha256: str | None = None) -> Blob:
        """Store a stream; the bytes are on disk, flushed, under their hash, when this returns.

        Args: size_max_bytes, counted while streaming; sha256, where the sender said what the bytes should be.
        Raises: TooLarge as soon as the limit is passed; Invalid when the hash differs; Unavailable when the disk is full.
        Nothing stays behind after an error or a cancellation.
        """
        try:
            await asyncio.to_thread(self._incoming.mkdir, mode=0o700, parents=True, exist_ok=True)
            descriptor, name = await asyncio.to_thread(tempfile.mkstemp, dir=self._incoming)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                try:
                    blob = await _write(file, stream, size_max_bytes)
                    if sha256 is not None and blob.sha256 != sha256:
                        raise Invalid("the bytes do not have the SHA-256 that was named", next_step="send them again", sha256=blob.sha256)
                    await asyncio.to_thread(self._keep, file, Path(name), blob)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name)
        except OSError as error:
            raise Unavailable(f"the blob store cannot write: {error.strerror}", next_step="try again later") from error
        return blob

    async def open(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes in chunks of at most 1 MiB. Raises: NotFound, before the first chunk."""
        try:
            file = await asyncio.to_thread(self.path(sha256).open, "rb")
        except FileNotFoundError:
            raise NotFound("these bytes are not stored") from None
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    def has(self, sha256: str) -> bool:
        """Whether the bytes are there."""
        return self.path(sha256).is_file()

    def path(self, sha256: str) -> Path:
        """Where the bytes lie. Raises: NotFound for what is no SHA-256 (so no name leaves the folder)."""
        if len(sha256) != 64 or not _HEX.issuperset(sha256):
            raise NotFound("these bytes are not stored")
        return self._root / sha256[:2] / sha256

    def confirm(self, sha256: str) -> None:
        """Make sure that bytes just put are still there. Call it under the blob's row lock, which collection takes as well.

        Raises: Unavailable when they were collected before that lock was had.
        """
        if not self.has(sha256):
            raise Unavailable("the bytes were removed while they were being stored", next_step="send them again")

    def remove(self, sha256: str) -> None:
        """Remove the file. Call it under the blob's row lock: whoever puts the same bytes meanwhile finds out by `confirm`."""
        self.path(sha256).unlink(missing_ok=True)

    def discard(self, sha256: str, *, older_s: float = UNREFERENCED_KEEP_S) -> bool:
        """Remove the file, as `remove`, unless it was put within `older_s`. Returns whether it is gone."""
        try:
            fresh = time.time() - self.path(sha256).stat().st_mtime < older_s
        except FileNotFoundError:
            return True
        if not fresh:
            self.remove(sha256)
        return not fresh

    def old(self, folder: int, *, older_s: float = UNREFERENCED_KEEP_S) -> list[Blob]:
        """What lies in one of the FOLDERS, put more than `older_s` ago, whether a row knows it or not."""
        found = []
        for path in (self._root / f"{folder:02x}").glob("?" * 64):
            with contextlib.suppress(FileNotFoundError, NotFound):
                seen = path.stat()
                if time.time() - seen.st_mtime > older_s and self.path(path.name) == path:
                    found.append(Blob(path.name, seen.st_size))
        return found

    def check_writable(self) -> None:
        """Write, flush and remove a file. Raises: Unavailable, with the reason."""
        try:
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._incoming, buffering=0) as file:
                file.write(b"?")
                os.fsync(file.fileno())
            free = shutil.disk_usage(self._incoming).free
        except OSError as error:
            raise Unavailable(
                f"the blob store cannot write: {error.strerror}", next_step="see who owns its folder, and its disk"
            ) from error
        if free < FREE_MIN_BYTES:
            raise Unavailable(f"the blob store's disk has {free >> 20} MiB left", next_step="free some space")

    def sweep_incoming(self, *, older_s: float = 3600) -> int:
        """Remove what a killed process left half written. Returns how many files."""
        gone = 0
        for path in self._incoming.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_s:
                    path.unlink()
                    gone += 1
        return gone

    def _keep(self, file: BinaryIO, incoming: Path, blob: Blob) -> None:
        os.fsync(file.fileno())
        path = self.path(blob.sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.replace(incoming, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def _write(file: BinaryIO, stream: AsyncIterable[bytes], size_max_bytes: int) -> Blob:
    digest, size, pending = hashlib.sha256(), 0, bytearray()
    async for chunk in stream:
        size += len(chunk)
        if size > size_max_bytes:
            raise TooLarge(f"more than {size_max_bytes} bytes", next_step=f"send at most {size_max_bytes} bytes", limit=size_max_bytes)
        pending += chunk
        if len(pending) >= CHUNK_BYTES:
            whole, pending = pending, bytearray()
            await asyncio.to_thread(_append, file, digest, whole)
    await asyncio.to_thread(_append, file, digest, pending)
    return Blob(digest.hexdigest(), size)


def _append(file: BinaryIO, digest: hashlib._Hash, chunk: bytearray) -> None:
    digest.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]
