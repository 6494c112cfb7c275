"""Durations that people read, and that read back to the second."""

from __future__ import annotations

import re
from typing import Final

from qubix.kernel.errors import Invalid

DURATION_MAX_S: Final = 10**10
_UNITS: Final = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
_NAMES: Final = {
    "d": 86_400,
    "day": 86_400,
    "h": 3600,
    "hour": 3600,
    "hr": 3600,
    "m": 60,
    "min": 60,
    "minute": 60,
    "s": 1,
    "sec": 1,
    "second": 1,
}
_PART: Final = re.compile(r"\s*(?:,|and\b)?\s*(\d{1,11})\s*([a-zA-Z]*)")


def readable(seconds: int) -> str:
    """As `5 minutes 30 seconds`; parts that are 0 are left out.

    Raises: ValueError for a negative number.
    """
    if seconds < 0:
        raise ValueError("a duration is never negative")
    parts = []
    left = seconds
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def parse(text: str) -> int:
    """Seconds of `5 minutes 30 seconds`, `5m30s`, `1h`, or a bare number of seconds.

    Raises: Invalid for anything else, for units out of order or repeated, and past DURATION_MAX_S.
    """
    total, last, at = 0, DURATION_MAX_S, 0
    stripped = text.strip()
    while at < len(stripped):
        found = _PART.match(stripped, at)
        unit = None if found is None else found[2].lower()
        size = _NAMES.get(unit or "", _NAMES.get((unit or "").removesuffix("s")))
        if unit == "" and at == 0 and found is not None and found.end() == len(stripped):
            size = 1
        if found is None or size is None or size >= last:
            raise _unreadable(text)
        total += int(found[1]) * size
        last, at = size, found.end()
    if not stripped or total > DURATION_MAX_S:
        raise _unreadable(text)
    return total


def _unreadable(text: str) -> Invalid:
    return Invalid(
        f"Cannot read {text[:60]!r} as a duration.", next_step="Write 90, 90s, 5m30s, 1h or 5 minutes 30 seconds.", field="duration"
    )
