"""The outermost layer of every HTTP request: its id, its size limit, its headers, its log line, its measurement."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qubix.kernel.ids import new_id
from qubix.observability import logger
from serve_app.errors import answer_unexpected, problem
from serve_app.metrics import Measurements

BODY_MAX_BYTES: Final = 1 << 20
"""For every route that does not stream."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._\-]{8,64}")
_QUIET: Final = frozenset({"/health/live", "/health/ready", "/metrics"})

log = logger("web.request")


class BodyTooLarge(HTTPException):
    """The body passed its limit while it was being read."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(413, f"The body is larger than the limit of {limit_bytes} bytes.")


class Edge:
    """ASGI middleware.

    Args: security_headers, set on every answer; body_limits, (path prefix, bytes) of the routes that stream.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        measurements: Measurements,
        security_headers: Sequence[tuple[bytes, bytes]],
        body_limits: Sequence[tuple[str, int]],
    ) -> None:
        self._app = app
        self._measurements = measurements
        self._security_headers = list(security_headers)
        self._body_limits = tuple(body_limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is not HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else new_id().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 500
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                self._dress(message, request_id)
            await send(message)

        limit = self._limit(scope["path"])
        counted = _Counted(receive, limit)
        self._measurements.in_flight.inc()
        try:
            if _declared_bytes(headers) > limit:
                await _too_large(limit)(scope, receive, send_with_headers)
            else:
                await self._app(scope, counted, send_with_headers)
        except Exception as error:
            if started:
                raise
            await answer_unexpected(error)(scope, receive, send_with_headers)
        finally:
            self._measurements.in_flight.dec()
            self._note(scope, status, time.perf_counter() - begun, counted.total)
            structlog.contextvars.unbind_contextvars("request_id")

    def _dress(self, message: Message, request_id: str) -> None:
        present = MutableHeaders(scope=message)
        own = {name for name, _ in message["headers"]}
        message["headers"].extend((name, value) for name, value in self._security_headers if name not in own)
        present["x-request-id"] = request_id
        if "cache-control" not in present:
            present["cache-control"] = "no-store"

    def _limit(self, path: str) -> int:
        return next((limit for prefix, limit in self._body_limits if path.startswith(prefix)), BODY_MAX_BYTES)

    def _note(self, scope: Scope, status: int, took_s: float, body_bytes: int) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._measurements.request(scope["method"], route, status, took_s, body_bytes)
        if scope["path"] not in _QUIET:
            log.info("request", method=scope["method"], route=route, status=status, ms=round(took_s * 1000, 1))


def _declared_bytes(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


def _too_large(limit: int) -> ASGIApp:
    return problem(
        413,
        "too_large",
        f"The body is larger than the limit of {limit} bytes.",
        next_step="Send a smaller body.",
        limit_bytes=limit,
    )


class _Counted:
    """A request's body, counted as it comes. Raises: BodyTooLarge past the limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self.total = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.total += len(message.get("body", b""))
            if self.total > self._limit:
                raise BodyTooLarge(self._limit)
        return message
