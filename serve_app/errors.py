"""Errors know a category, this edge knows HTTP: one table, and problem+json (RFC 9457) for every refusal."""

from __future__ import annotations

import asyncio
import http
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import sqlalchemy.exc
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from qubix.kernel.errors import (
    Conflict,
    Invalid,
    Limited,
    NotFound,
    QubixError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unpaid,
)
from qubix.observability import logger

PROBLEM: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2

log = logger("web")


class CrossSite(Unauthenticated):
    """A browser sent the session cookie from another site's page."""

    code = "cross_site"


STATUS: Final[tuple[tuple[type[QubixError], int], ...]] = (
    (TooLarge, 413),
    (Invalid, 422),
    (CrossSite, 403),
    (Unauthenticated, 401),
    (Unpaid, 402),
    (NotFound, 404),
    (Conflict, 409),
    (Limited, 429),
    (Unavailable, 503),
)
"""The table: the first category that fits."""

_NEXT_STEPS: Final[Mapping[int, str]] = {
    404: "See /api/docs for the paths.",
    405: "See /api/docs for the methods of this path.",
    413: "Send a smaller body.",
}
_ANY_STEP: Final = "See /api/docs for what this route takes."


def status_of(error: QubixError) -> int:
    """The HTTP status of an error's category; 500 for none."""
    return next((status for category, status in STATUS if isinstance(error, category)), 500)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    next_step: str = "",
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem+json answer; `extra` members stand beside the standard ones."""
    members = {
        "type": f"urn:qubix:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "next_step": next_step,
        **extra,
    }
    return Response(json.dumps(members, default=str), status, media_type=PROBLEM, headers=dict(headers or {}))


def problem_of(error: QubixError) -> Response:
    """The answer to a Qubix error."""
    status = status_of(error)
    if status == 500:
        return _internal()
    headers = {}
    if isinstance(error, Unauthenticated) and status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Limited | Unavailable):
        headers["Retry-After"] = str(math.ceil(float(error.extra.get("retry_after_s", RETRY_AFTER_S))))
    next_step = error.next_step or _NEXT_STEPS.get(status, _ANY_STEP)
    return problem(status, error.code, error.message, next_step=next_step, headers=headers, **error.extra)


def is_database_trouble(error: BaseException) -> bool:
    """Whether the database is away, overloaded or gave up waiting: not the request's fault, and worth another try later."""
    if is_unstorable(error):
        return False
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or _state(error) in _PASSING or isinstance(error, sqlalchemy.exc.InterfaceError)
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _PASSING:  # acts of money go straight to the driver
        return True
    return isinstance(
        error,
        sqlalchemy.exc.TimeoutError | asyncpg.PostgresConnectionError | asyncpg.InterfaceError | ConnectionError | asyncio.TimeoutError,
    )


def is_unstorable(error: BaseException) -> bool:
    """Whether the database refused a value for what it is: a NUL in a text, a number out of range. The request's fault."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return _state(error).startswith("22") or isinstance(error.orig, UnicodeEncodeError)
    return isinstance(error, asyncpg.DataError | UnicodeEncodeError)


def is_passing_conflict(error: BaseException) -> bool:
    """Whether the transaction lost a race (deadlock, serialisation) and may simply be run again."""
    if isinstance(error, asyncpg.PostgresError):  # acts of money go straight to the driver
        return error.sqlstate in _LOST_RACE
    return isinstance(error, sqlalchemy.exc.DBAPIError) and _state(error) in _LOST_RACE


_LOST_RACE: Final = frozenset({"40001", "40P01"})


_PASSING: Final = frozenset(
    {"40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "08000", "08003", "08006"}
)


def _state(error: sqlalchemy.exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")


def database_problem() -> Response:
    """What a client may know of database trouble."""
    return problem(
        503,
        "unavailable",
        "The database is not answering.",
        next_step=f"Try again in {RETRY_AFTER_S} s: a write with its Idempotency-Key, and one without a key only if it was not done.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _internal() -> Response:
    return problem(
        500, "internal", "Something went wrong on our side.", next_step="Try again; the X-Request-Id tells us which request it was."
    )


def _validation_problem(errors: Sequence[Mapping[str, Any]]) -> Response:
    shown = [
        {
            "field": ".".join(str(part) for part in error["loc"]),
            "message": error["msg"],
            "rule": error["type"],
            "allowed": {name: value for name, value in error.get("ctx", {}).items() if name != "error"},
        }
        for error in errors[:20]
    ]
    first = shown[0] if shown else {"field": "body", "message": "is malformed"}
    return problem(
        422,
        "invalid",
        f"{first['field']}: {first['message']}",
        next_step="Correct the named fields; /api/docs shows what each may hold.",
        field=first["field"],
        errors=shown,
    )


def install(app: FastAPI) -> None:
    """Give the application these answers, for its own errors and for the framework's."""

    @app.exception_handler(QubixError)
    async def qubix_error(_request: Request, error: QubixError) -> Response:
        if status_of(error) == 500:
            log.error("error without a category", error=repr(error))
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, error: RequestValidationError) -> Response:
        if any(found["loc"][0] == "path" for found in error.errors()):
            return problem_of(
                NotFound(
                    "There is no such thing: its id is not one of ours.",
                    next_step="Take a whole id from your list: qubix jobs has your jobs.",
                )
            )
        return _validation_problem(error.errors())

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            return _validation_problem([{"loc": ("body",), "msg": str(error.detail), "type": "unreadable"}])
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "refused")
        next_step = _NEXT_STEPS.get(error.status_code, _ANY_STEP)
        headers = {"Allow": _methods(request, error)} if error.status_code == 405 else error.headers
        return problem(error.status_code, code, str(error.detail), next_step=next_step, headers=headers)


def _methods(request: Request, error: HTTPException) -> str:
    """All methods of this path, by the contract: the framework names those of the first route alone."""
    asked, paths = request.url.path, request.app.openapi()["paths"]
    alike = [asked] if asked in paths else [path for path in paths if compile_path(path)[0].match(asked)]
    found = {method.upper() for path in alike for method in paths[path]}
    return ", ".join(sorted(found)) or (error.headers or {}).get("Allow", "")


def answer_unexpected(error: Exception) -> Response:
    """The answer to an exception that nobody foresaw; database trouble is told apart."""
    if is_unstorable(error):
        return problem(
            422,
            "invalid",
            "A value holds characters, or a number, that cannot be kept.",
            next_step="Remove control characters and broken surrogates; keep numbers below 2^63.",
        )
    if is_database_trouble(error):
        log.warning("database trouble", error=type(error).__name__)
        return database_problem()
    log.error("unexpected error", exc_info=error)
    return _internal()
