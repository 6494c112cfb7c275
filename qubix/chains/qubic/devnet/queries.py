"""The query API's filters and ranges, as SQL over the store's columns. What is not allowed is refused as the archive does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet.refusal import bad
from qubix.chains.qubic.errors import InvalidIdentity

PAGE_DEFAULT: Final = 10
PAGE_MAX: Final = 1000
HITS_MAX: Final = 10_000
VALUES_MAX: Final = 5
_BOUNDS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1
_I64_MAX: Final = 2**63 - 1

TRANSACTION_COLUMNS: Final = {
    "source": "source",
    "destination": "destination",
    "amount": "amount",
    "inputType": "input_type",
    "tickNumber": "tick",
    "timestamp": "timestamp",
}
EVENT_COLUMNS: Final = {
    "source": "source",
    "destination": "destination",
    "amount": "amount",
    "tickNumber": "tick",
    "epoch": "epoch",
    "timestamp": "timestamp",
    "logType": "kind",
    "transactionHash": "transaction_id",
}
_IDENTITIES: Final = ("source", "destination")
_LISTS: Final = (*_IDENTITIES, "logType")


@dataclass(frozen=True)
class Page:
    """Rows `offset` to `offset + size` of those that match."""

    offset: int
    size: int


class Where:
    """A conjunction of conditions with its values."""

    def __init__(self) -> None:
        self._conditions: list[str] = ["1"]
        self.values: list[Any] = []

    def add(self, condition: str, *values: Any) -> None:
        """One more condition."""
        self._conditions.append(condition)
        self.values.extend(values)

    @property
    def sql(self) -> str:
        """For after WHERE."""
        return " AND ".join(self._conditions)

    def add_filters(self, body: Mapping[str, Any], columns: Mapping[str, str], filters: Sequence[str], ranges: Sequence[str]) -> None:
        """The `filters`, `exclude` and `ranges` of a request.

        Args: body; columns, what a property is called in the table; filters and ranges, the properties that may be used.
        Raises: Refusal (3) for another property, a malformed value.
        """
        for name, value in _object(body, "filters").items():
            self._add_values(columns, _allowed(name, filters), value, "IN")
        for name, value in _object(body, "exclude").items():
            self._add_values(columns, _allowed(name, _IDENTITIES), value, "NOT IN")
        for name, bounds in _object(body, "ranges").items():
            _allowed(name, ranges)
            if not isinstance(bounds, Mapping) or not bounds or not bounds.keys() <= _BOUNDS.keys():
                raise bad(f"invalid range [{name}]")
            if {"gt", "gte"} <= bounds.keys() or {"lt", "lte"} <= bounds.keys():
                raise bad(f"invalid range [{name}]: one lower and one upper bound at most")
            for bound, value in bounds.items():
                self.add(f"{columns[name]} {_BOUNDS[bound]} ?", min(unsigned(value, name, _U64_MAX), _I64_MAX))

    def _add_values(self, columns: Mapping[str, str], name: str, value: Any, how: str) -> None:
        if not isinstance(value, str):
            raise bad(f"invalid filter [{name}]")
        found: list[Any] = [part.strip() for part in value.split(",")] if name in _LISTS else [value]
        if len(found) > VALUES_MAX:
            raise bad(f"filter [{name}] has too many values")
        if name in _IDENTITIES:
            for text in found:
                check_identity(text)
        elif name == "transactionHash":
            check_hash(value)
        else:
            found = [min(unsigned(text, name, _U64_MAX), _I64_MAX) for text in found]
        self.add(f"{columns[name]} {how} ({', '.join('?' * len(found))})", *found)


def page_of(body: Mapping[str, Any]) -> Page:
    """The page that a request asks for. Raises: Refusal (3) beyond 1000 rows, or beyond row 10 000."""
    asked = _object(body, "pagination")
    offset, size = (unsigned(asked.get(name, 0), name, U32_MAX) for name in ("offset", "size"))
    size = size or PAGE_DEFAULT
    if size > PAGE_MAX:
        raise bad(f"page size [{size}] exceeds allowed maximum [{PAGE_MAX}]")
    if offset + size > HITS_MAX:
        raise bad(f"offset [{offset}] + size [{size}] exceeds maximum allowed [{HITS_MAX}]")
    return Page(offset, size)


def unsigned(value: Any, name: str, highest: int) -> int:
    """A number as protobuf's JSON writes it: digits in a string, or a number. Raises: Refusal (3)."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(highest)):
        value = int(value)
    if type(value) is not int or not 0 <= value <= highest:
        raise bad(f"invalid {name}")
    return value


def check_identity(text: Any) -> bytes:
    """The public key of an identity. Raises: Refusal (3)."""
    try:
        return identity.decode(text if isinstance(text, str) else "")
    except InvalidIdentity as error:
        raise bad(f"invalid id format: {error}") from error


def check_hash(text: Any) -> str:
    """A transaction's id. Raises: Refusal (3)."""
    if not isinstance(text, str) or text != text.lower():
        raise bad("invalid id format: a transaction's hash has 60 lower-case letters")
    check_identity(text.upper())
    return text


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise bad(f"invalid {name}")
    return found


def _allowed(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise bad(f"unsupported filter [{name}]")
    return name
