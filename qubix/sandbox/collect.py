"""Take files out of a folder that hostile code has written: no link is followed, no device opened, every count capped.

All access goes by descriptor, so a folder that is renamed or replaced meanwhile cannot lead elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEPTH_MAX: Final = 16
USAGE_DEPTH_MAX: Final = 64
"""Deeper than this, disk use is not counted, and an attempt that goes there is ended."""
FILES_MAX: Final = 1000
ENTRIES_MAX: Final = 20_000
REJECTED_MAX: Final = 100
NAME_MAX_CHARACTERS: Final = 200
PIECE_BYTES: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = _READ | os.O_DIRECTORY


@dataclass(frozen=True)
class Taken:
    """A file whose bytes lie in the spool."""

    name: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Refused:
    """A file that was not taken."""

    name: str
    reason: str


class NotTaken(Exception):
    """This entry is not taken, with the reason."""


class Copy:
    """A copy under way: `step` copies one piece, so that the runner can do other things in between."""

    def __init__(self, folder: int, name: str, target: Path, size_max: int) -> None:
        """folder: descriptor of the folder; name: an entry of it. Raises: NotTaken."""
        self.target, self._size_max = target, size_max
        self.size, self.done = 0, False
        self._hash = hashlib.sha256()
        self._source = _open_regular(folder, name, size_max)
        self._output = -1
        try:
            self._output = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            self._close()
            raise

    def step(self) -> bool:
        """Copy a piece. Returns: whether the copy is complete. Raises: NotTaken (grown beyond the limit), OSError."""
        piece = os.read(self._source, PIECE_BYTES)
        self.size += len(piece)
        if self.size > self._size_max:
            self.abandon()
            raise NotTaken("too big")
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._output, view) :]
        if not piece:
            self._close()
            self.done = True
        return self.done

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was copied so far."""
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Give up and leave nothing behind."""
        self._close()
        self.target.unlink(missing_ok=True)

    def _close(self) -> None:
        for descriptor in (self._source, self._output):
            if descriptor >= 0:
                os.close(descriptor)
        self._source = self._output = -1


def collect(folder: int, spool: Path, *, size_max: int, prefix: str) -> Iterator[Taken | Refused]:
    """Copy every regular file below `folder` (a descriptor) into `spool` as <prefix>-<number>.

    size_max: bytes over all files; a sparse file counts by its apparent size.
    """
    taken = size = 0
    for count, (name, parent, entry, depth) in enumerate(_walk(folder, DEPTH_MAX)):
        if count >= ENTRIES_MAX:
            yield Refused("…", f"more than {ENTRIES_MAX} entries")
            return
        shown = name if name.isprintable() else repr(name)
        try:
            if depth > DEPTH_MAX:
                raise NotTaken("too deep")
            if not name.isprintable() or len(name) > NAME_MAX_CHARACTERS:
                raise NotTaken("name not printable or too long")
            if taken >= FILES_MAX:
                raise NotTaken(f"more than {FILES_MAX} files")
            copy = _copied(Copy(parent, entry, spool / f"{prefix}-{taken + 1}", size_max - size))
        except NotTaken as reason:
            yield Refused(shown[:NAME_MAX_CHARACTERS], str(reason))
        except OSError as error:
            yield Refused(shown[:NAME_MAX_CHARACTERS], f"cannot be stored: {error.strerror}")
        else:
            taken, size = taken + 1, size + copy.size
            yield Taken(name, copy.target, copy.sha256, copy.size)


@dataclass(frozen=True)
class Usage:
    """What a folder takes: bytes on disk; entries, counted a little beyond ENTRIES_MAX; uncounted, it nests deeper than is looked into."""

    size: int
    entries: int
    uncounted: bool = False


def usage(folder: int) -> Usage:
    """What lies below `folder` (a descriptor); a walk that races with the job is approximate."""
    total = entries = 0
    for entries, (_, parent, entry, depth) in enumerate(_walk(folder, USAGE_DEPTH_MAX, folders=True), start=1):
        if entries > ENTRIES_MAX + 1000:
            break
        try:
            found = os.stat(entry, dir_fd=parent, follow_symlinks=False)
        except OSError:
            continue
        total += found.st_blocks * 512
        if depth > USAGE_DEPTH_MAX and stat.S_ISDIR(found.st_mode):
            return Usage(total, entries, uncounted=True)
    return Usage(total, entries)


def _copied(copy: Copy) -> Copy:
    try:
        while not copy.step():
            pass
    except OSError:
        copy.abandon()
        raise
    return copy


def _walk(root: int, depth_max: int, *, folders: bool = False) -> Iterator[tuple[str, int, str, int]]:
    """(path, descriptor of the parent, entry, depth) of every entry, depth first; what lies below depth_max are entries, not entered."""
    levels: list[tuple[int, str, Iterator[str]]] = []
    try:
        _push(levels, _listable(root), "")
        while levels:
            parent, path, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(levels.pop()[0])
                continue
            depth = len(levels)
            inner = _enter(parent, entry) if depth <= depth_max else None
            _push(levels, inner, f"{path}{entry}/")
            if inner is None or folders:
                yield path + entry, parent, entry, depth
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _push(levels: list[tuple[int, str, Iterator[str]]], folder: int | None, path: str) -> None:
    if folder is None:
        return
    levels.append((folder, path, iter(())))
    with contextlib.suppress(OSError):
        levels[-1] = (folder, path, iter(sorted(os.listdir(folder))))


def _enter(parent: int, entry: str) -> int | None:
    try:
        place = os.open(entry, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    try:
        return _listable(place)
    finally:
        os.close(place)


def _listable(place: int) -> int | None:
    """Open a folder for reading, whatever its mode: one that a job has closed would hide from the count what is in it."""
    with contextlib.suppress(OSError):
        found = os.fstat(place)
        if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
        return os.open(".", _FOLDER, dir_fd=place)
    return None


def _open_regular(folder: int, name: str, size_max: int) -> int:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise NotTaken("not a regular file")
        descriptor = os.open(name, _READ | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise NotTaken(errno.errorcode.get(error.errno or 0, "cannot be opened")) from error
    found = os.fstat(descriptor)
    reason = ""
    if not stat.S_ISREG(found.st_mode):
        reason = "not a regular file"
    elif found.st_nlink != 1:
        reason = "hard link"
    elif found.st_size > size_max:
        reason = "too big"
    if reason:
        os.close(descriptor)
        raise NotTaken(reason)
    return descriptor
