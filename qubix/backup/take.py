"""Taking a backup while the platform runs.

The order makes it consistent. Bytes that rows refer to now are copied first; then one snapshot is dumped, and lists what it refers to; what of that
is not there yet is copied last. A file is removed only a day after it was put and when nothing refers to it: what was referred to before the
snapshot is in the first pass, and what was put since is still there in the second.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import qubix
from qubix.backup import files, programs
from qubix.backup.model import BLOB_LIST, BLOBS, DUMP, MANIFEST, Manifest, blob_lines
from qubix.backup.store import Source, open_source
from qubix.kernel.errors import Conflict, Unavailable

TAKEN_MAX_S: Final = 20 * 3600.0
"""A backup that takes longer could miss bytes that were collected meanwhile: it is given up."""
PART: Final = ".part"


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was just taken. Args: copied_bytes, of blobs that no earlier backup had; took_s."""

    folder: Path
    manifest: Manifest
    copied: int
    copied_bytes: int
    took_s: float


async def take(url: str, blobs: Path, to: Path, *, say: Callable[[str], None] = lambda _: None) -> Taken:
    """Back up a database and its bytes into a new folder below `to`.

    Args: url, of the database's owner; blobs, the store's folder; say, told each step as it begins.
    Raises: Unavailable when the database, a program or the disk fails (nothing that looks like a backup is left); Conflict.
    """
    began = time.monotonic()
    try:
        await asyncio.to_thread(to.mkdir, mode=0o700, parents=True, exist_ok=True)
        with files.alone(to):
            async with asyncio.timeout(TAKEN_MAX_S), open_source(url) as source:
                programs.check_version(await source.server_version())
                return await _taken(source, url, _Pool(blobs, to / BLOBS), to, say, began)
    except OSError as error:
        raise Unavailable(f"the backup cannot be written: {error}", next_step="see its disk, and who owns the folder") from error


async def _taken(source: Source, url: str, pool: _Pool, to: Path, say: Callable[[str], None], began: float) -> Taken:
    say("bytes")
    await asyncio.to_thread(_clear, to)
    await asyncio.to_thread(pool.copy, await source.blobs())
    say("database")
    folder = to / f"{os.getpid()}{PART}"
    folder.mkdir(mode=0o700)
    try:
        async with source.snapshot() as snapshot:
            facts, referred = await source.facts(), await source.blobs()
            await programs.dump(url, folder / DUMP, snapshot=snapshot)
        say("bytes that came meanwhile")
        missing = await asyncio.to_thread(pool.copy, referred)
        there = {sha256: size for sha256, size in referred.items() if sha256 not in missing}
        files.write(folder / BLOB_LIST, blob_lines(there))
        manifest = Manifest(
            **{field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)},
            qubix_version=qubix.__version__,
            parts=tuple(await asyncio.to_thread(lambda: [files.measured(folder / name) for name in (DUMP, BLOB_LIST)])),
            blobs=len(there),
            blobs_bytes=sum(there.values()),
            missing=tuple(sorted(missing)),
        )
        kept = to / manifest.name
        if kept.exists():
            raise Conflict(f"there is a backup of this very moment already: {kept}", next_step="take it again")
        files.write(folder / MANIFEST, manifest.encoded())
        files.flush_folder(folder)
        os.rename(folder, kept)
        files.flush_folder(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Taken(kept, manifest, pool.copied, pool.copied_bytes, time.monotonic() - began)


class _Pool:
    """The bytes of all backups in one place. Args: store, the platform's; root, the backups'."""

    def __init__(self, store: Path, root: Path) -> None:
        self._store = store
        self._root = root
        self.copied = 0
        self.copied_bytes = 0

    def copy(self, wanted: dict[str, int]) -> set[str]:
        """Copy what is not there yet. Returns: what could not be had, because its file is gone or damaged."""
        missing = set()
        for sha256, size in wanted.items():
            target = self._root / sha256[:2] / sha256
            if target.exists() and target.stat().st_size == size:
                continue
            if files.copy(self._store / sha256[:2] / sha256, target, sha256):
                self.copied += 1
                self.copied_bytes += size
            else:
                missing.add(sha256)
        return missing


def _clear(to: Path) -> None:
    """Remove what a killed backup left half; the caller owns the folder."""
    for left in to.glob(f"*{PART}"):
        shutil.rmtree(left, ignore_errors=True)


def listed(to: Path) -> list[Path]:
    """The complete backups in a folder, the oldest first."""
    return sorted(path.parent for path in to.glob(f"*/{MANIFEST}"))


def prune(to: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` backups, and the bytes that only they referred to. Returns what was removed.

    A manifest goes first: what is left of a backup that was half removed is none. Raises: Conflict; OSError.
    """
    with files.alone(to):
        known = listed(to)
        gone, kept = known[: max(0, len(known) - keep)], known[max(0, len(known) - keep) :]
        for folder in gone:
            (folder / MANIFEST).unlink()
            files.flush_folder(folder)
            shutil.rmtree(folder)
        if gone:
            _drop_unlisted(to / BLOBS, kept)
    return gone


def _drop_unlisted(pool: Path, backups: Iterable[Path]) -> None:
    wanted = {line.split()[0] for folder in backups for line in (folder / BLOB_LIST).read_text().splitlines()}
    for path in pool.glob("??/*"):
        if path.name not in wanted:
            path.unlink()
