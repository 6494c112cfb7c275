"""From bytes that a job writes to events: log text with offsets, and the messages of its control pipe."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Final

from qubix.sandbox.events import LogText, Stream

LINE_MAX_BYTES: Final = 16 << 10
CHUNK_MAX_BYTES: Final = 32 << 10
FLUSH_S: Final = 0.05
DROPPED_MAX_BYTES: Final = 64 << 20
MESSAGE_MAX_BYTES: Final = 4 << 10
MESSAGES_AT_ONCE: Final = 10_000
MESSAGES_PER_S: Final = 20.0
OPERATION_MAX_CHARACTERS: Final = 200


@dataclass
class Budget:
    """Bytes that may still be kept, over both output streams, and bytes dropped since."""

    left: int
    dropped: int = 0

    @property
    def flooded(self) -> bool:
        """More was dropped than any honest job writes."""
        return self.dropped > DROPPED_MAX_BYTES


class LogStream:
    """One stream: makes valid UTF-8 without NUL, breaks endless lines, and hands text out promptly but not byte by byte."""

    def __init__(self, name: Stream, budget: Budget) -> None:
        self.name, self._budget = name, budget
        self.offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = bytearray()
        self._line = 0
        self._flushed_at = float("-inf")

    def feed(self, piece: bytes, *, end: bool = False) -> None:
        """Take what was read; `end` after the last piece."""
        if not self._budget.left:
            self._budget.dropped += len(piece)
            return
        encoded = self._decoder.decode(piece, end).replace("\0", "\ufffd").encode()
        encoded = self._broken(encoded)
        kept = encoded[: self._budget.left]
        if len(kept) < len(encoded):
            kept = kept.decode(errors="ignore").encode()
            self._budget.dropped += len(encoded) - len(kept)
            self._budget.left = 0
        else:
            self._budget.left -= len(kept)
        self._waiting += kept

    def due_s(self, now: float) -> float | None:
        """Seconds until text should be handed out; None: there is none."""
        if not self._waiting:
            return None
        return 0.0 if len(self._waiting) >= CHUNK_MAX_BYTES else max(0.0, self._flushed_at + FLUSH_S - now)

    def take(self, now: float) -> list[LogText]:
        """Hand out all that waits."""
        events: list[LogText] = []
        while self._waiting:
            end = min(len(self._waiting), CHUNK_MAX_BYTES)
            while end < len(self._waiting) and self._waiting[end] & 0xC0 == 0x80:
                end -= 1
            events.append(LogText(self.name, self.offset, self._waiting[:end].decode()))
            self.offset += end
            del self._waiting[:end]
        self._flushed_at = now
        return events

    def _broken(self, encoded: bytes) -> bytes:
        """Put a line end into lines that are longer than LINE_MAX_BYTES."""
        last = encoded.rfind(b"\n")
        if self._line + len(encoded) <= LINE_MAX_BYTES:
            self._line = len(encoded) - last - 1 if last >= 0 else self._line + len(encoded)
            return encoded
        lines: list[bytes] = []
        for line in encoded.splitlines(keepends=True):
            start = 0
            while len(line) - start + self._line > LINE_MAX_BYTES:
                cut = start + LINE_MAX_BYTES - self._line
                while cut > start and line[cut] & 0xC0 == 0x80:
                    cut -= 1
                lines.append(line[start:cut] + b"\n")
                start, self._line = cut, 0
            lines.append(line[start:])
            self._line = 0 if line.endswith(b"\n") else self._line + len(line) - start
        return b"".join(lines)


@dataclass(frozen=True)
class Message:
    """A message of the job's sdk: exactly one of checkpoint, restore_failed, or a progress report."""

    pct: float = 0.0
    operation: str = ""
    checkpoint: str | None = None
    restore_failed: str | None = None


class ControlStream:
    """The pipe on which the sdk reports: JSON lines. What is malformed, too long or too much is skipped, and drained on."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._skipping = False
        self._accepted = 0

    def feed(self, piece: bytes, ran_s: float) -> list[Message]:
        """Take what was read; ran_s: seconds since the job started, which earn it further messages."""
        found: list[Message] = []
        self._waiting += piece
        while (end := self._waiting.find(b"\n")) >= 0:
            line = bytes(self._waiting[:end])
            del self._waiting[: end + 1]
            skip, self._skipping = self._skipping, False
            if skip or len(line) > MESSAGE_MAX_BYTES or self._accepted >= MESSAGES_AT_ONCE + ran_s * MESSAGES_PER_S:
                continue
            message = _parse(line)
            if message is not None:
                self._accepted += 1
                found.append(message)
        if len(self._waiting) > MESSAGE_MAX_BYTES:
            self._waiting.clear()
            self._skipping = True
        return found


def _parse(line: bytes) -> Message | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    pct, operation = content.get("pct", 0.0), content.get("operation", "")
    if not isinstance(pct, (int, float)) or isinstance(pct, bool) or not 0 <= pct <= 100 or not isinstance(operation, str):
        return None
    name, reason = content.get("checkpoint"), content.get("restore_failed")
    if isinstance(reason, str):
        return Message(restore_failed=_clean(reason)[:1000])
    if isinstance(name, str):
        valid = name.isascii() and name.isalnum() and len(name) <= 32
        return Message(pct=float(pct), checkpoint=name) if valid else None
    return Message(pct=float(pct), operation=_clean(operation)[:OPERATION_MAX_CHARACTERS]) if "pct" in content else None


def _clean(text: str) -> str:
    """Valid UTF-8 without NUL: JSON can spell a lone surrogate, a database takes neither."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
