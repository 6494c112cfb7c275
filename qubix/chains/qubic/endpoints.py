"""One endpoint of the network and one request to it: paced, timed, limited in size, and its troubles told apart.

An endpoint that fails FAILURES_MAX times in a row is left alone for OPEN_S seconds, then one request at a time may try it; one that
says 429 is left alone for as long as it says.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from qubix.chains.qubic.errors import MalformedAnswer, NotThere, RpcRefused, RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.pace import RpcLimits
from qubix.kernel.clock import Clock

T = TypeVar("T")
FAILURES_MAX: Final = 3
OPEN_S: Final = 10.0
RETRY_AFTER_MAX_S: Final = 300.0
"""How long an endpoint is believed that it wants no requests."""
RETRY_AFTER_DEFAULT_S: Final = 2.0
REASON_LETTERS_MAX: Final = 300

_INVALID_ARGUMENT, _NOT_FOUND, _FAILED_PRECONDITION, _OUT_OF_RANGE = 3, 5, 9, 11
"""gRPC's codes, as the gateway passes them on."""


class NotSent(RpcUnavailable):
    """Not a byte of the request has left: the endpoint cannot have acted on it."""


class LimitReached(RpcUnavailable):
    """The endpoint wants fewer requests."""


class Endpoint:
    """A base URL, and how it has behaved of late."""

    def __init__(self, base: str, clock: Clock) -> None:
        self.base = base.rstrip("/")
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0

    @property
    def wait_s(self) -> float:
        """How long it is to be left alone; 0 if it may be asked."""
        return max(0.0, self._closed_until - self._clock.monotonic())

    def now(self) -> dt.datetime:
        """The time of day, by which a Retry-After may be written."""
        return self._clock.now()

    def begin(self) -> None:
        """A request goes out. While the endpoint is on trial nobody else is to try it."""
        if self._failures >= FAILURES_MAX:
            self._closed_until = self._clock.monotonic() + OPEN_S

    def answered(self) -> None:
        """It did its work, whatever it said."""
        self._failures, self._closed_until = 0, 0.0

    def failed(self) -> None:
        """It did not."""
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._closed_until = self._clock.monotonic() + OPEN_S

    def limited(self, retry_after_s: float) -> None:
        """It wants no request for that long."""
        self._closed_until = max(self._closed_until, self._clock.monotonic() + retry_after_s)


@dataclass(frozen=True, slots=True)
class Question:
    """One request: method, path and JSON body; tick, the one asked about, for errors that mean a tick."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    tick: int = 0


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, question: Question, parse: Callable[[object], T], limits: RpcLimits) -> T:
    """The endpoint's answer, parsed; the endpoint's record keeps how it did.

    Raises: RpcRefused, NotThere, TickNotYetProcessed, TickSkipped for what it says; NotSent, LimitReached, MalformedAnswer and
        other RpcUnavailable for what it fails at.
    """
    endpoint.begin()
    try:
        answer = parse(await _fetch(client, endpoint, question, limits))
    except LimitReached as error:
        endpoint.limited(error.extra["retry_after_s"])
        raise
    except RpcUnavailable:
        endpoint.failed()
        raise
    except (RpcRefused, TickNotYetProcessed, TickSkipped):
        endpoint.answered()
        raise
    endpoint.answered()
    return answer


async def _fetch(client: httpx.AsyncClient, endpoint: Endpoint, question: Question, limits: RpcLimits) -> object:
    try:
        async with (
            asyncio.timeout(limits.timeout_s),
            client.stream(question.method, endpoint.base + question.path, json=question.body) as response,
        ):
            content = await _read(response, limits.answer_max_bytes)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NotSent(f"{endpoint.base} cannot be reached ({type(error).__name__})") from error
    except (httpx.HTTPError, TimeoutError) as error:
        raise RpcUnavailable(f"{endpoint.base} did not answer ({type(error).__name__})") from error
    if response.status_code == 429:
        wait_s = _retry_after_s(response.headers.get("retry-after"), endpoint.now())
        raise LimitReached(f"{endpoint.base} wants fewer requests", retry_after_s=wait_s)
    if response.status_code == 200:
        return _json(content)
    raise _error(response.status_code, content, question.tick)


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            raise MalformedAnswer(f"an answer of more than {max_bytes} bytes")
    return bytes(content)


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer("an answer that is not JSON") from error


def _error(status: int, content: bytes, tick: int) -> Exception:
    """What a gateway's error means. One without its shape is the error of something before the gateway, and says nothing about the chain."""
    try:
        found = _json(content)
    except MalformedAnswer:
        found = None
    if status not in (400, 404, 500) or not isinstance(found, dict) or type(found.get("code")) is not int:
        return RpcUnavailable(f"status {status}")
    message = str(found.get("message") or f"code {found['code']}")[:REASON_LETTERS_MAX]
    match found["code"]:
        case code if code == _INVALID_ARGUMENT:
            return RpcRefused(message)
        case code if code == _NOT_FOUND:
            return NotThere(message)
        case code if code == _FAILED_PRECONDITION:
            return TickNotYetProcessed(tick, _detail(found, "tickNumber", "lastProcessedTick"))
        case code if code == _OUT_OF_RANGE:
            next_tick = _detail(found, "nextTickNumber")
            if next_tick is None or next_tick <= tick:
                return MalformedAnswer("a skipped tick without the next one")
            return TickSkipped(tick, next_tick)
    return RpcUnavailable(message)


def _detail(found: dict[str, Any], *names: str) -> int | None:
    """A tick in an error's details, which are a list of objects, or one object."""
    details = found.get("details")
    for item in details if isinstance(details, list) else [details]:
        for name in names:
            number = item.get(name) if isinstance(item, dict) else None
            if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= 10:
                number = int(number)
            if type(number) is int and 0 <= number < 2**32:
                return number
    return None


def _retry_after_s(header: str | None, now: dt.datetime) -> float:
    """Seconds, or a date; what cannot be read is RETRY_AFTER_DEFAULT_S."""
    if header is None:
        return RETRY_AFTER_DEFAULT_S
    if header.isascii() and header.isdigit():
        return float(min(int(header[:9]), RETRY_AFTER_MAX_S))
    try:
        left = email.utils.parsedate_to_datetime(header) - now
    except (TypeError, ValueError, OverflowError):
        return RETRY_AFTER_DEFAULT_S
    return min(max(left.total_seconds(), 0.0), RETRY_AFTER_MAX_S)
