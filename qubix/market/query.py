"""The typed query language of offers: `gpu=RTX_4090 vram>=24GB price<2000 region in [eu,us] fast nvme`.

Terms are joined by "and": comparisons of a known field, and free words that must all occur. See docs/market.md.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable
from typing import Final

from qubix.kernel.errors import Invalid
from qubix.market.model import PRICE_MAX

QUERY_LENGTH_MAX: Final = 1000
TERMS_MAX: Final = 40
VALUES_MAX: Final = 50


class Op(enum.StrEnum):
    """Comparison operators; `in` and `notin` take a list."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    NOT_IN = "notin"


EQUALITY: Final = (Op.EQ, Op.NE, Op.IN, Op.NOT_IN)
NEGATIONS: Final = (Op.NE, Op.NOT_IN)

Value = str | int | float | bool


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; `values` has one member except for `in` and `notin`."""

    field: str
    op: Op
    values: tuple[Value, ...]


class QueryError(Invalid):
    """The query cannot be read; `position` (from 0) says where, `allowed` what could stand there."""

    code = "invalid_query"


_UNITS: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-zA-Z]{0,3})")


def _size(text: str) -> int:
    """Bytes. GB is 10^9 (a 24 GB card reports 24564 MiB, so a binary reading would miss it), GiB is 2^30; a bare number is GB."""
    found = _SIZE.fullmatch(text)
    unit = "?" if found is None else (found[2].upper() or "GB")
    unit = {"K": "KB", "M": "MB", "G": "GB", "T": "TB"}.get(unit, unit)
    if found is None or unit not in _UNITS:
        raise ValueError("a size such as 24GB or 512MB")
    whole, _, part = str(found[1]).partition(".")
    scaled = int(whole + part) * _UNITS[unit] // int("1" + "0" * len(part))
    if scaled >= 1 << 62:
        raise ValueError("a size below 4 EB")
    return scaled


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,16}", text) or int(text) > PRICE_MAX:
        raise ValueError(f"a whole number from 0 to {PRICE_MAX}")
    return int(text)


def _share(text: str) -> float:
    percent = text.endswith("%")
    number = text.removesuffix("%")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", number):
        raise ValueError("a share such as 0.95 or 95%")
    return float(number) / 100 if percent else float(number)


def _number(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        raise ValueError("a number such as 82.5")
    return float(text)


def _truth(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise ValueError("true or false")
    return known[text.lower()]


def model_key(text: str) -> str:
    """The form in which GPU models are compared: `rtx-4090` and `RTX 4090` are RTX_4090."""
    return re.sub(r"[\s\-_]+", "_", text.strip()).upper()


def _lower(text: str) -> str:
    return text.lower()


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of the language: how its values are read, and which operators it has."""

    name: str
    read: Callable[[str], Value]
    ops: tuple[Op, ...]
    about: str


_ALL: Final = tuple(Op)
FIELDS: Final = {
    field.name: field
    for field in (
        Field("gpu", model_key, EQUALITY, "GPU model, as RTX_4090"),
        Field("vram", _size, _ALL, "memory of one GPU, as 24GB"),
        Field("price", _whole, _ALL, "units per GPU-hour"),
        Field("region", _lower, EQUALITY, "region; eu matches eu-west too"),
        Field("provider", _lower, EQUALITY, "provider's name or id"),
        Field("gpus", _whole, _ALL, "free GPUs on the node"),
        Field("reliability", _share, _ALL, "share of attempts that ended without the provider's fault, 0 to 1 or in %"),
        Field("verified", _truth, (Op.EQ, Op.NE), "whether the GPU was measured by us"),
        Field("detected", _lower, EQUALITY, "how the GPU was detected: nvml, webgpu, webgl, declared"),
        Field("cpu_cores", _whole, _ALL, "CPU cores of the node"),
        Field("ram", _size, _ALL, "RAM of the node, as 64GB"),
        Field("tflops", _number, _ALL, "FP16 tensor TFLOPS of one GPU, from the catalogue"),
    )
}
ALIASES: Final = {"model": "gpu", "memory": "vram", "cores": "cpu_cores", "gpu_model": "gpu"}

_BLANK: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL: Final = re.compile(r"\s*(==|!=|<=|>=|<|>|=)\s*")
_WORD_OP: Final = re.compile(r"\s+(not\s*in|in)\s*(?=\[)", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"([^"]*)"')
_BARE: Final = re.compile(r"[^\s,\[\]\"=<>!]+")
_FREE: Final = re.compile(r"[^\s\"]+")


def condition(name: str, op: Op, texts: list[str], *, position: int = 0) -> Condition:
    """One comparison from its texts, checked and read by the field's type. Raises: QueryError."""
    field = FIELDS.get(ALIASES.get(name.lower(), name.lower()))
    if field is None:
        raise QueryError(
            f"There is no field {name!r} (position {position}).",
            next_step=f"Fields are {', '.join(FIELDS)}.",
            position=position,
            allowed=list(FIELDS),
        )
    if op not in field.ops:
        allowed = [o.value for o in field.ops]
        raise QueryError(
            f"{field.name} cannot be compared by {op.value!r} (position {position}).",
            next_step=f"Operators of {field.name} are {' '.join(allowed)}.",
            position=position,
            allowed=allowed,
        )
    if not 1 <= len(texts) <= VALUES_MAX:
        raise QueryError(f"A list has 1 to {VALUES_MAX} values (position {position}).", next_step="Shorten it.", position=position)
    try:
        return Condition(field.name, op, tuple(field.read(text) for text in texts))
    except ValueError as error:
        raise QueryError(
            f"{field.name} takes {error}, not {' '.join(texts)[:80]!r} (position {position}).",
            next_step=f"{field.name}: {field.about}.",
            position=position,
        ) from None


def parse(text: str) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """Read a query.

    Returns: its comparisons, and its free words in lower case; both must all hold.
    Raises: QueryError with the position and what is allowed there.
    """
    if len(text) > QUERY_LENGTH_MAX:
        raise QueryError(f"A query has at most {QUERY_LENGTH_MAX} characters.", next_step="Shorten it.", position=QUERY_LENGTH_MAX)
    conditions: list[Condition] = []
    words: list[str] = []
    at = _skip(text, 0)
    while at < len(text):
        found, at = _comparison(text, at)
        if found is not None:
            conditions.append(found)
        else:
            word, at = _free_word(text, at)
            words += [word] if word else []
        if len(conditions) + len(words) > TERMS_MAX:
            raise QueryError(f"A query has at most {TERMS_MAX} terms.", next_step="Shorten it.", position=at)
        at = _skip(text, at)
    return tuple(conditions), tuple(words)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _comparison(text: str, at: int) -> tuple[Condition | None, int]:
    name = _NAME.match(text, at)
    if name is None:
        return None, at
    if symbol := _SYMBOL.match(text, name.end()):
        value, end = _value(text, symbol.end())
        op = Op.EQ if symbol[1] == "==" else Op(symbol[1])
        return condition(name[0], op, [value], position=at), end
    if word := _WORD_OP.match(text, name.end()):
        values, end = _list(text, word.end())
        op = Op.IN if word[1].lower() == "in" else Op.NOT_IN
        return condition(name[0], op, values, position=at), end
    return None, at


def _value(text: str, at: int) -> tuple[str, int]:
    found = _QUOTED.match(text, at) or _BARE.match(text, at)
    if found is None:
        raise QueryError(f"A value is missing at position {at}.", next_step='Write a value, in "quotes" if it has blanks.', position=at)
    return (found[1] if found.re is _QUOTED else found[0]), found.end()


def _list(text: str, at: int) -> tuple[list[str], int]:
    values: list[str] = []
    at += 1
    while True:
        value, at = _value(text, _skip(text, at))
        values.append(value)
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark == "]":
            return values, at + 1
        if mark != ",":
            raise QueryError(
                f"Expected ',' or ']' at position {at}.", next_step="Lists look like [eu,us].", position=at, allowed=[",", "]"]
            )
        at += 1


def _free_word(text: str, at: int) -> tuple[str, int]:
    found = _QUOTED.match(text, at) or _FREE.match(text, at)
    if found is None:
        raise QueryError(f"A quote is not closed at position {at}.", next_step='Close it with ".', position=at)
    word = found[1] if found.re is _QUOTED else found[0]
    if found.re is _FREE and re.search(r"[=<>!\[\]]", word):
        raise QueryError(
            f"Cannot read {word[:40]!r} at position {at}.",
            next_step=f"Write field operator value; fields are {', '.join(FIELDS)}.",
            position=at,
        )
    return word.lower(), found.end()
