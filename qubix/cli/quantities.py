"""Quantities as people write them: `24GB`, `2h`, `k=v`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import typer

from qubix.kernel.sizes import ALLOWED, parse_size

_TIMES: Final = {"": 1, "S": 1, "M": 60, "MIN": 60, "H": 3600, "D": 86400}
_NUMBER: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


def size_bytes(text: str) -> int:
    """The least bytes that `24GB`, `512MiB` or `24` covers: a card that is sold as 24 GB has them. Raises: typer.BadParameter."""
    try:
        return parse_size(text).least
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not {error}; units are {', '.join(ALLOWED)}") from None


def duration_s(text: str) -> int:
    """`90`, `15min`, `2h`, `1d` as seconds. Raises: typer.BadParameter."""
    return _read(text, _TIMES, "a duration such as 90s, 15min or 2h")


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """`k=v` items as a dictionary. Raises: typer.BadParameter."""
    found = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise typer.BadParameter(f"{text!r} is not name=value")
        found[name] = value
    return found


def spoken(seconds: float) -> str:
    """A duration in words: `5 min 30 s`."""
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def _read(text: str, units: dict[str, int], wanted: str) -> int:
    match = _NUMBER.match(text)
    if match is None or match[2].upper() not in units:
        raise typer.BadParameter(f"{text!r} is not {wanted}")
    return int(float(match[1]) * units[match[2].upper()])
