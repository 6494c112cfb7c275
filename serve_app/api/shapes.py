"""What all requests and answers share."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Body(BaseModel):
    """A request's body: closed to unknown members, no silent conversion between text and numbers."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


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


Limit = Annotated[int, Query(ge=1, le=100, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": what, "content": {"application/problem+json": {}}}
    for code, what in {
        401: "Nobody, or nobody any more.",
        404: "It does not exist, or is somebody else's.",
        409: "Not in this state.",
        422: "A field is not what it may be.",
        429: "Too often; see Retry-After.",
        503: "Something needed is away; see Retry-After.",
    }.items()
}
