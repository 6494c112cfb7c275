"""Errors know a category; the edge knows HTTP.

Every error has a stable `code`, a message that says what happened, and `next_step`, which says what to do about it.
`extra` carries machine-readable members (a missing amount, the limit, the next best offer).
"""

from __future__ import annotations

from typing import Any, ClassVar


class QubixError(Exception):
    """The root; raise one of the seven categories below, or a subclass with a code of its own."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, next_step: str = "", **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.extra = extra


class Invalid(QubixError):
    """The request can never succeed as it stands."""

    code = "invalid"


class TooLarge(Invalid):
    """The request is larger than a stated limit."""

    code = "too_large"


class Unauthenticated(QubixError):
    """Nobody, or nobody any more: log in again."""

    code = "unauthenticated"


class Unpaid(QubixError):
    """The money is not there."""

    code = "insufficient_funds"


class NotFound(QubixError):
    """It does not exist, or it is somebody else's; the two look the same from outside."""

    code = "not_found"


class Conflict(QubixError):
    """It cannot be done in this state; the state may change."""

    code = "conflict"


class Limited(QubixError):
    """Too often; `extra['retry_after_s']` says when to come back."""

    code = "rate_limited"


class Unavailable(QubixError):
    """Something that is needed is away for now."""

    code = "unavailable"
