"""A small load generator: some keep-alive connections, each asking again as soon as it is answered. Runs as a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

NUMBER = "%7Bn%7D"
"""Stands in a URL for the number of the connection that asks, from 0."""


@dataclass(frozen=True)
class Load:
    """What one run found: answers a second, and the time of an answer in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    bytes_each: int


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        self._request = request
        self._until = until
        self._times = times
        self._sent = 0.0
        self._missing = -1
        self._head = b""
        self.size = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, piece: bytes) -> None:
        if self._missing < 0:
            self._head += piece
            head, separator, rest = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(head[:200].decode(errors="replace")))
                self._transport.close()
                return
            lower = head.lower()
            start = lower.index(b"content-length:") + 15
            self.size = int(lower[start:].split(b"\r\n", 1)[0])
            self._missing = self.size - len(rest)
            self._head = b""
        else:
            self._missing -= len(piece)
        if self._missing == 0:
            self._missing = -1
            now = time.perf_counter()
            self._times.append(now - self._sent)
            if now < self._until:
                self._ask()
            elif not self.done.done():
                self.done.set_result(None)
                self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed by the server"))


def _numbered(request: str, number: int) -> bytes:
    return request.replace(NUMBER, str(number)).encode()


async def _run(url: str, authorization: str, connections: int, seconds: float) -> Load:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", *([f"Authorization: {authorization}"] if authorization else []), "", ""]
    request = "\r\n".join(lines)
    numbers = iter(range(connections))
    times: list[float] = []
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(_numbered(request, next(numbers)), begun + seconds, times), parts.hostname or "", parts.port or 80
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    took = time.perf_counter() - begun
    times.sort()
    return Load(len(times) / took, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000, made[0][1].size)


def load(url: str, *, key: str = "", connections: int = 16, seconds: float = 4.0) -> Load:
    """Ask for `url` from a process of its own. Raises: RuntimeError when an answer is not 200."""
    line = [sys.executable, __file__, url, f"Bearer {key}" if key else "", str(connections), str(seconds)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-500:])
    return Load(**json.loads(done.stdout))


if __name__ == "__main__":
    found = uvloop.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    print(json.dumps(found.__dict__))
