"""Errors as a gRPC gateway tells them: a code, a message, details."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final


class Code(enum.IntEnum):
    """The gRPC codes that the RPC uses."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAUTHENTICATED = 16


HTTP_STATUS: Final[Mapping[Code, int]] = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAUTHENTICATED: 401,
}


class Refusal(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, code: Code, message: str, *details: Mapping[str, Any], status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = HTTP_STATUS[code] if status is None else status

    @property
    def body(self) -> dict[str, Any]:
        """The JSON document."""
        return {"code": int(self.code), "message": self.message, "details": [dict(detail) for detail in self.details]}


def bad(message: str) -> Refusal:
    """A request that can never succeed."""
    return Refusal(Code.INVALID_ARGUMENT, message)
