"""Endpoints of Qubic's RPC as a test writes them, without a socket; and a clock that a test, or a sleep, moves."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire

FIRST, SECOND = "http://first.example", "http://second.example"


class HandClock:
    """Time that moves when a test says so, or somebody sleeps."""

    def __init__(self) -> None:
        self.at_s = 1_000.0
        self.slept: list[float] = []

    def now(self) -> dt.datetime:
        return dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC) + dt.timedelta(seconds=self.at_s - 1_000)

    def monotonic(self) -> float:
        return self.at_s

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.at_s += delay_s
        await asyncio.sleep(0)


@dataclass
class Seen:
    """A request that an endpoint got."""

    at_s: float
    base: str
    path: str
    body: Any


Said = httpx.Response | Exception
Answer = Callable[[Seen], Said] | Said


class Endpoints(httpx.AsyncBaseTransport):
    """What each endpoint says to the next requests: the last answer again and again; nothing written: it cannot be reached."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.seen: list[Seen] = []
        self._written: dict[str, list[Answer]] = {}

    def write(self, base: str, *answers: Answer) -> None:
        """What `base` says from now on."""
        self._written[base] = list(answers)

    def paths(self) -> list[tuple[str, str]]:
        """Endpoint and path of each request so far."""
        return [(seen.base, seen.path) for seen in self.seen]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = b"".join([chunk async for chunk in request.stream]) if isinstance(request.stream, httpx.AsyncByteStream) else b""
        base = f"{request.url.scheme}://{request.url.host}"
        seen = Seen(self._clock.at_s, base, request.url.path, json.loads(content) if content else None)
        self.seen.append(seen)
        await asyncio.sleep(0)
        answers = self._written.get(base, [])
        if not answers:
            raise httpx.ConnectError("nobody listens", request=request)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        said = answer(seen) if callable(answer) else answer
        if isinstance(said, Exception):
            raise said
        # A response is read once; what is said twice needs two.
        return httpx.Response(said.status_code, headers=said.headers, content=said.content)


def ok(answer: object) -> httpx.Response:
    """What the network answers."""
    return httpx.Response(200, json=answer)


def trouble(status: int, code: int, message: str = "no", **details: object) -> httpx.Response:
    """A gateway's error."""
    return httpx.Response(status, json={"code": code, "message": message, "details": [details] if details else []})


def head(tick: int) -> httpx.Response:
    """A tick-info."""
    return ok({"tickInfo": {"tick": tick, "duration": 1, "epoch": 227, "initialTick": 1}})


def processed(tick: int) -> httpx.Response:
    """A last processed tick."""
    return ok({"tickNumber": tick, "epoch": 227, "intervalInitialTick": 1, "lastProcessedLogTick": tick})


class World:
    """A client over two (or more) endpoints that a test writes, with time by hand."""

    def __init__(self, *bases: str, limits: RpcLimits | None = None) -> None:
        self.clock = HandClock()
        self.endpoints = Endpoints(self.clock)
        self.rpc = QubicRpc(Wire(bases or (FIRST, SECOND), clock=self.clock, transport=self.endpoints, limits=limits, jitter=lambda: 1.0))
