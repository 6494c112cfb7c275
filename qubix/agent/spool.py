"""Durable frames on the node's disk until the web layer has committed them.

One folder per attempt: `frames.jsonl`, append-only, and `blobs/<sha256>`, the bytes of checkpoints and artefacts. A line is
a CRC and a JSON record; a line that a crash tore is cut off at the next start, everything before it is replayed in order.
Frames survive a killed agent as soon as `append` returns, a powered-off machine after the next `sync`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from qubix.agent.protocol import Artefact, Checkpoint, Durable, Finished, Log, Running, Stream, parse_up

NO_SESSION = UUID(int=0)
"""Stands in spooled frames; the session that is open when a frame is sent takes its place."""
SPOOL_SIZE_MAX_BYTES = 512 << 20
END_BYTES = 1 << 20
"""Set aside on disk at an attempt's start, so that its end can be told when the disk is full."""
_DURABLE = (Running, Log, Checkpoint, Artefact, Finished)


@dataclass
class Manifest:
    """What an attempt has reported so far, as `finished` lists it."""

    log_ends: dict[str, int] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    artefacts: list[str] = field(default_factory=list)
    ran_ms: int = 0

    def add(self, frame: Durable) -> None:
        """Take one more frame into account."""
        if isinstance(frame, Log):
            end = frame.offset + len(frame.text.encode())
            self.log_ends[frame.stream.value] = max(end, self.log_ends.get(frame.stream.value, 0))
        elif isinstance(frame, Checkpoint):
            self.checkpoints.append(frame.number)
            self.ran_ms = max(self.ran_ms, frame.ran_ms)
        elif isinstance(frame, Artefact):
            self.artefacts.append(frame.name)


class Journal:
    """The spooled frames of one attempt."""

    def __init__(self, folder: Path, attempt: UUID, fence: int) -> None:
        """Open, or make, the journal in `folder`; an existing one is replayed."""
        self.folder, self.attempt, self.fence = folder, attempt, fence
        self.manifest = Manifest()
        self.finished = False
        self.stuck = False  # the web layer wants what is not here: its end can never be reported
        self.refused: set[str] = set()
        self._refused_hashes: set[str] = set()
        self.size_bytes = 0
        self._where: dict[str, tuple[int, int]] = {}
        self._unacked: dict[str, None] = {}
        self._due: dict[str, None] = {}
        self._dirty = False
        (folder / "blobs").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(folder / "frames.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._aside = folder / "aside"
        if os.fstat(self._fd).st_size == 0:
            self._write({"attempt": str(attempt), "fence": fence})
            self._set_aside()
        else:
            self._replay()

    def append(self, frame: Durable) -> bool:
        """Store a frame. Returns: False if its key is stored already (nothing is written)."""
        if frame.key in self._where:
            return False
        if isinstance(frame, Finished):
            self._aside.unlink(missing_ok=True)
        self._write({"frame": frame.model_dump(mode="json")}, frame)
        return True

    def log(self, stream: Stream, text: str, node_at: float) -> bool:
        """Append text to a log stream. Offsets are counted here: the agent's own lines share a stream with the sandbox's."""
        offset = self.manifest.log_ends.get(stream.value, 0)
        return self.append(
            Log(session=NO_SESSION, attempt=self.attempt, fence=self.fence, stream=stream, offset=offset, text=text, node_at=node_at)
        )

    def acknowledge(self, key: str) -> None:
        """The web layer has it: never send it again, unless it is reported missing."""
        if key in self._unacked:
            frame = self.frame(key, self.attempt)
            if isinstance(frame, Checkpoint | Artefact):
                self.drop_blob(frame.sha256)
            with contextlib.suppress(OSError):  # on a full disk it is forgotten by a restart: then it is sent again, which is harmless
                self._write({"ack": key})
            del self._unacked[key]
            self._due.pop(key, None)

    def want(self, key: str) -> bool:
        """A frame reported missing is due again. Returns: whether it is stored here."""
        if key in self._where:
            self._unacked[key] = self._due[key] = None
        return key in self._where

    def next_due(self) -> str | None:
        """Take the oldest key to send; `finished` comes only when everything else is acknowledged. None: nothing to send now."""
        for key in self._due:
            if key.endswith("/finished") and len(self._unacked) > 1:
                continue
            del self._due[key]
            return key
        return None

    def due_again(self, keys: Iterable[str]) -> None:
        """These were sent and not acknowledged: send them once more, in the order in which their frames came."""
        again = set(keys) | set(self._due)
        self._due = {key: None for key in self._unacked if key in again}

    def all_due(self) -> None:
        """A new session: everything unacknowledged is to be sent again."""
        self._due = dict(self._unacked)

    def unacknowledged(self) -> list[str]:
        """Keys still to be acknowledged, in the order in which their frames came."""
        return list(self._unacked)

    def frame(self, key: str, session: UUID) -> Durable:
        """A stored frame, addressed to the session that is open now. Raises: KeyError."""
        offset, length = self._where[key]
        record = _decode(os.pread(self._fd, length, offset))
        if record is None:
            raise KeyError(key)
        found = parse_up(json.dumps(record["frame"] | {"session": str(session)}))
        if not isinstance(found, _DURABLE):
            raise KeyError(key)
        return found

    def blob(self, sha256: str) -> Path:
        """Where the bytes with that hash lie (or shall lie)."""
        return self.folder / "blobs" / sha256

    def drop_blob(self, sha256: str) -> None:
        """The bytes are stored at the web layer, and a committed row refers to them."""
        self.blob(sha256).unlink(missing_ok=True)

    def refuse(self, key: str) -> None:
        """The web layer will never take these bytes: leave the frame out of the attempt, after a restart as well."""
        self._write({"refused": key})
        self._note_refused(key)
        self.acknowledge(key)

    def is_refused(self, sha256: str) -> bool:
        """Whether the web layer refused these bytes, under whatever name, and they are gone."""
        return sha256 in self._refused_hashes and not self.blob(sha256).exists()

    def sync(self) -> None:
        """Make everything appended so far safe against a power cut."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, record: dict[str, Any], frame: Durable | None = None) -> None:
        line = _encode(record)
        offset = os.fstat(self._fd).st_size
        view = memoryview(line)
        try:
            while view:
                view = view[_append(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, offset)  # what follows a torn line would be lost with it
            raise
        self._dirty = True
        self._note(offset, len(line), frame)

    def _set_aside(self) -> None:
        fd = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, END_BYTES)
        finally:
            os.close(fd)

    def _note(self, offset: int, length: int, frame: Durable | None) -> None:
        self.size_bytes = offset + length
        if frame is not None:
            self._where[frame.key] = (offset, length)
            self._unacked[frame.key] = self._due[frame.key] = None
            self.manifest.add(frame)
            self.finished = self.finished or isinstance(frame, Finished)

    def _note_refused(self, key: str) -> None:
        self.refused.add(key)
        frame = self.frame(key, self.attempt)
        if isinstance(frame, Checkpoint | Artefact):
            self._refused_hashes.add(frame.sha256)

    def _replay(self) -> None:
        offset = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for line in file:
                record = _decode(line)
                if record is None:
                    break
                frame = parse_up(json.dumps(record["frame"])) if "frame" in record else None
                self._note(offset, len(line), frame if isinstance(frame, _DURABLE) else None)
                if "refused" in record:
                    self._note_refused(record["refused"])
                self._unacked.pop(record.get("ack", ""), None)
                self._due.pop(record.get("ack", ""), None)
                offset += len(line)
        os.ftruncate(self._fd, offset)


class Spool:
    """All journals of a node."""

    def __init__(self, folder: Path, size_max_bytes: int = SPOOL_SIZE_MAX_BYTES) -> None:
        """Args: folder, existing; size_max_bytes, above which `has_room` is false and log readers wait."""
        self.folder, self.size_max_bytes = folder, size_max_bytes
        self._journals: dict[UUID, Journal] = {}
        for below in sorted(folder.iterdir()):
            header = _header(below / "frames.jsonl")
            if header is None:
                shutil.rmtree(below, ignore_errors=True)
            else:
                attempt = UUID(header["attempt"])
                self._journals[attempt] = Journal(below, attempt, int(header["fence"]))

    def __iter__(self) -> Iterator[Journal]:
        return iter(list(self._journals.values()))

    def get(self, attempt: UUID) -> Journal | None:
        """The journal of an attempt, if it has one."""
        return self._journals.get(attempt)

    def open(self, attempt: UUID, fence: int) -> Journal:
        """The journal of an attempt, made if need be; its existence records that the attempt was started here."""
        if attempt not in self._journals:
            self._journals[attempt] = Journal(self.folder / str(attempt), attempt, fence)
        return self._journals[attempt]

    def forget(self, attempt: UUID) -> None:
        """Drop an attempt's frames and bytes: all is acknowledged, or the platform said stop."""
        journal = self._journals.pop(attempt, None)
        if journal is not None:
            journal.close()
            shutil.rmtree(journal.folder, ignore_errors=True)

    def has_room(self) -> bool:
        """Whether more log may be read; the other frames are few and are always taken."""
        return sum(j.size_bytes for j in self._journals.values()) < self.size_max_bytes

    def sync(self) -> None:
        """Make all journals safe against a power cut."""
        for journal in self:
            journal.sync()

    def close(self) -> None:
        """Let go of all files; they stay on disk."""
        for journal in self:
            journal.close()


def _append(fd: int, data: memoryview) -> int:
    return os.write(fd, data)


def _encode(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for a torn or damaged one."""
    if len(line) < 11 or not line.endswith(b"\n"):
        return None
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:-1]):
            return None
        record = json.loads(line[9:-1])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            record = _decode(file.readline())
    except OSError:
        return None
    return record if record is not None and "attempt" in record else None
