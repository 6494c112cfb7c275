"""Quantities as people write them: `24GB`, `2h`, `k=v`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import typer

from qubix.kernel.sizes import ALLOWED, parse_size

_TIMES: Final = {"": 1, "S": 1, "M": 60, "MIN": 60, "H": 3600, "D": 86400}
_DURATION: Final = "a duration such as 90s, 15min, 2h or 7d"
_DATES_TOO: Final = frozenset({"since", "until"})
"""Options whose duration tells how long ago; a date says the same."""
_NUMBER: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


class Unreadable(typer.BadParameter):
    """A quantity that cannot be read; told with the option it was given to, once the command is known."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        self.text = text

    def format_message(self) -> str:
        """The mistake, and what the option takes."""
        context = self.ctx
        for param in context.command.params if context is not None else ():
            if context is not None and context.params.get(param.name or "") == self.text:
                self.param_hint = repr(param.opts[0])
                if param.name in _DATES_TOO:
                    self.message = f"{self.text!r} is neither a date, as 2026-11-22 or 2026-11-22T18:00, nor {_DURATION}"
                break
        return super().format_message()


def size_bytes(text: str) -> int:
    """The least bytes that `24GB`, `512MiB` or `24` covers: a card that is sold as 24 GB has them. Raises: typer.BadParameter."""
    try:
        return parse_size(text).least
    except ValueError as error:
        raise Unreadable(text, f"{text!r} is not {error}; units are {', '.join(ALLOWED)}") from None


def duration_s(text: str) -> int:
    """`90`, `15min`, `2h`, `1d` as seconds. Raises: typer.BadParameter."""
    return _read(text, _TIMES, _DURATION)


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
        raise Unreadable(text, f"{text!r} is not {wanted}")
    return int(float(match[1]) * units[match[2].upper()])
