"""The typed query language of offers: `gpu=RTX_4090 vram>=24GB price<2000 region in [eu,us] fast nvme`.

Terms are joined by "and": comparisons of a known field, and free words that must all occur. See docs/market.md.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from qubix.kernel.errors import Invalid
from qubix.kernel.sizes import ALLOWED as UNITS
from qubix.kernel.sizes import Size, parse_size
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
    """One comparison; `values` has one member except for `in` and `notin`.

    Args: upto, for the equality of sizes: where each of the values ends that covers more than one number of bytes.
    """

    field: str
    op: Op
    values: tuple[Value, ...]
    upto: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A piece of the query: its text, and where it stands (from 0)."""

    text: str
    at: int
    end: int


class QueryError(Invalid):
    """The query cannot be read; `position` (from 0) and `length` say where, `allowed` what could stand there."""

    code = "invalid_query"


class _Unreadable(ValueError):
    """A value that its field cannot take. Args: allowed, what it can take, where that is a short list."""

    def __init__(self, wanted: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(wanted)
        self.allowed = allowed


def _size(text: str) -> Size:
    """See qubix.kernel.sizes: `24GB` covers every card that is sold as 24 GB."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise _Unreadable(str(error), allowed=UNITS) from None


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,16}", text) or int(text) > PRICE_MAX:
        raise _Unreadable(f"a whole number from 0 to {PRICE_MAX}")
    return int(text)


def _share(text: str) -> float:
    percent = text.endswith("%")
    number = text.removesuffix("%")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", number):
        raise _Unreadable("a share such as 0.95 or 95%")
    return float(number) / 100 if percent else float(number)


def _number(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        raise _Unreadable("a number such as 82.5")
    return float(text)


def _truth(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise _Unreadable("true or false", allowed=tuple(known))
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
    read: Callable[[str], Value | Size]
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
SIZES: Final = tuple(field for field in FIELDS.values() if field.read is _size)
ALIASES: Final = {"model": "gpu", "memory": "vram", "cores": "cpu_cores", "gpu_model": "gpu"}

_BLANK: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL: Final = re.compile(r"\s*(==|!=|<=|>=|<|>|=)\s*")
_WORD_OP: Final = re.compile(r"\s+(not\s*in|in)\s*(?=\[)", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"([^"]*)"')
_BARE: Final = re.compile(r"[^\s,\[\]\"=<>!]+")
_FREE: Final = re.compile(r"[^\s\"]+")
_SPACED: Final = re.compile(r"[0-9.]+\s+[kmgt]i?b(?=\s|$)", re.IGNORECASE)


def condition(name: str, op: Op, texts: list[str]) -> Condition:
    """One comparison from its texts, checked and read by the field's type. Raises: QueryError, without a position."""
    return _condition(Token(name, 0, 0), op, Token(op, 0, 0), [Token(text, 0, 0) for text in texts], where=False)


def _condition(name: Token, op: Op, symbol: Token, tokens: list[Token], *, where: bool = True) -> Condition:
    field = FIELDS.get(ALIASES.get(name.text.lower(), name.text.lower()))
    if field is None:
        raise _mistake(f"There is no field {name.text[:80]!r}", name, where, f"Fields are {', '.join(FIELDS)}.", FIELDS)
    if op not in field.ops:
        allowed = [o.value for o in field.ops]
        said = f"{field.name} cannot be compared by {op.value!r}"
        raise _mistake(said, symbol, where, f"Operators of {field.name} are {' '.join(allowed)}.", allowed)
    if not 1 <= len(tokens) <= VALUES_MAX:
        raise _mistake(f"A list has 1 to {VALUES_MAX} values", dataclasses.replace(name, end=tokens[-1].end), where, "Shorten it.")
    read: list[Value | Size] = []
    for token in tokens:
        try:
            read.append(field.read(token.text))
        except _Unreadable as error:
            hint = f" Units are {', '.join(error.allowed)}." if error.allowed == UNITS else ""
            said = f"{field.name} takes {error}, not {token.text[:80]!r}"
            raise _mistake(said, token, where, f"{field.name}: {field.about}.{hint}", error.allowed) from None
    return _compared(field.name, op, read)


def _compared(field: str, op: Op, read: list[Value | Size]) -> Condition:
    """A size's lower edge decides `>=` and `<`, its upper one `<=` and `>`: 24GB itself is no more and no less than 24GB."""
    sizes = [value for value in read if isinstance(value, Size)]
    if not sizes:
        return Condition(field, op, tuple(value for value in read if not isinstance(value, Size)))
    if op in EQUALITY:
        return Condition(field, op, tuple(size.least for size in sizes), tuple(size.most for size in sizes))
    return Condition(field, op, (sizes[0].most if op in (Op.LE, Op.GT) else sizes[0].least,))


def _mistake(said: str, token: Token, where: bool, next_step: str, allowed: Iterable[str] = ()) -> QueryError:
    extra: dict[str, Any] = {"position": token.at, "length": max(1, token.end - token.at)} if where else {}
    if allowed := list(allowed):
        extra["allowed"] = allowed
    return QueryError(f"{said} (position {token.at})." if where else f"{said}.", next_step=next_step, **extra)


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
    found = _NAME.match(text, at)
    if found is None:
        return None, at
    name = Token(found[0], at, found.end())
    if symbol := _SYMBOL.match(text, name.end):
        value = _value(text, symbol.end(), unit=FIELDS.get(ALIASES.get(name.text.lower(), name.text.lower())) in SIZES)
        op = Op.EQ if symbol[1] == "==" else Op(symbol[1])
        return _condition(name, op, Token(symbol[1], symbol.start(1), symbol.end(1)), [value]), value.end
    if word := _WORD_OP.match(text, name.end):
        values, end = _list(text, word.end())
        op = Op.IN if word[1].lower() == "in" else Op.NOT_IN
        return _condition(name, op, Token(word[1], word.start(1), word.end(1)), values), end
    return None, at


def _value(text: str, at: int, *, unit: bool = False) -> Token:
    """Args: unit, whether a number may be followed by a blank and its unit: `24 GB`."""
    found = (_SPACED.match(text, at) if unit else None) or _QUOTED.match(text, at) or _BARE.match(text, at)
    if found is None:
        raise QueryError(
            f"A value is missing at position {at}.", next_step='Write a value, in "quotes" if it has blanks.', position=at, length=1
        )
    return Token(found[1] if found.re is _QUOTED else found[0], at, found.end())


def _list(text: str, at: int) -> tuple[list[Token], int]:
    values: list[Token] = []
    at += 1
    while True:
        value = _value(text, _skip(text, at))
        values.append(value)
        at = _skip(text, value.end)
        mark = text[at : at + 1]
        if mark == "]":
            return values, at + 1
        if mark != ",":
            raise QueryError(
                f"Expected ',' or ']' at position {at}.", next_step="Lists look like [eu,us].", position=at, length=1, allowed=[",", "]"]
            )
        at += 1


def _free_word(text: str, at: int) -> tuple[str, int]:
    found = _QUOTED.match(text, at) or _FREE.match(text, at)
    if found is None:
        raise QueryError(f"A quote is not closed at position {at}.", next_step='Close it with ".', position=at, length=len(text) - at)
    word = found[1] if found.re is _QUOTED else found[0]
    if found.re is _FREE and re.search(r"[=<>!\[\]]", word):
        raise QueryError(
            f"Cannot read {word[:40]!r} at position {at}.",
            next_step=f"Write field operator value; fields are {', '.join(FIELDS)}.",
            position=at,
            length=len(word),
        )
    return word.lower(), found.end()
