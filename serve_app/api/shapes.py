"""What all requests and answers share."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict

T = TypeVar("T")


class Body(BaseModel):
    """A request's body: closed to unknown members; nothing is converted silently, so neither "1" nor true is an amount of 1.

    What JSON has no type for (ids, choices) is marked FROM_TEXT.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, strict=True, allow_inf_nan=False)


FROM_TEXT: Final = Strict(strict=False)
"""An `Annotated` mark of a body's fields that come as text and are read into something else."""


class View(BaseModel):
    """An answer, read from the fields of a domain object."""

    model_config = ConfigDict(from_attributes=True)


class Page(View, Generic[T]):
    """A page of a list. `position` was read before the items: follow the topics from there."""

    items: list[T]
    next_cursor: str | None = None
    position: int = 0


class Problem(BaseModel):
    """Every refusal (application/problem+json, RFC 9457); some carry more members."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    next_step: str


def _no_number(value: object) -> object:
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("a time is written as in RFC 3339, 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[dt.datetime, BeforeValidator(_no_number)]
"""A time as text: a bare number could mean seconds or milliseconds."""
Limit = Annotated[int, Query(ge=1, le=100, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]

_WHAT: Final = {
    401: "Nobody, or nobody any more.",
    402: "The money is not there; `missing` says how much.",
    403: "A browser sent this from another site's page.",
    404: "It does not exist, or is somebody else's.",
    405: "Not by this method; see Allow.",
    409: "Not in this state.",
    413: "Larger than a limit.",
    422: "A field is not what it may be.",
    429: "Too often; see Retry-After.",
    503: "Something needed is away; see Retry-After.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    # Named, not given as a model: the framework would call it application/json as well. serve_app.app adds the schema.
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": _WHAT[code], "content": content} for code in statuses}


PROBLEMS: Final = _problems(*(code for code in _WHAT if code != 402))
"""What any route may answer."""
UNPAID: Final = _problems(402)
"""What a route that spends may answer as well."""
OPTIONAL_LOGIN: Final[dict[str, Any]] = {"security": [{}]}
"""`openapi_extra` of a route that also answers nobody: OpenAPI's way to say that a credential may be left out."""
