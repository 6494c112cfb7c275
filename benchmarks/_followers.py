"""Clients of the live view: each follows the marketplace on a socket of its own, and counts what it hears.

    python -m benchmarks._followers PORT COUNT ADDRESS      (ADDRESS, the loopback address that they come from: it has ports of its own)

Says `ready` when all are subscribed; then, per event that the last of them has heard, one JSON line. Obeys the lines `drop` (every
second one vanishes) and `resume` (those come back, from the last position that they have).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from typing import Any

import uvloop

from benchmarks._sockets import Socket, upgrade
from qubix.kernel.open_files import raise_limit

CONNECTING_MAX = 32
MARK = b'"bench":'
SUBSCRIBED = b'{"t":"subscribed"'


class Follower:
    """One client. It knows the last event that it heard, by its own number and by its position."""

    def __init__(self, followers: Followers) -> None:
        self._all = followers
        self._socket: Socket | None = None
        self.number = self.position = 0
        self.missed = self.doubled = 0
        self.closed = False
        self.subscribed = asyncio.Event()

    async def connect(self, *, resume: bool = False) -> None:
        """Connect and subscribe, from now on or behind the last position."""
        self.subscribed.clear()
        request = upgrade(f"127.0.0.1:{self._all.port}", "/api/ws")
        socket = self._socket = Socket(request, self._hear, self._closed)
        source = (self._all.address, 0)
        await asyncio.get_running_loop().create_connection(lambda: socket, "127.0.0.1", self._all.port, local_addr=source)
        await socket.open
        start = self.position if resume else None
        socket.send(json.dumps({"t": "subscribe", "topics": ["marketplace"], "from_position": start}).encode())
        await self.subscribed.wait()
        self.closed = False

    def drop(self) -> None:
        assert self._socket is not None
        self._socket.drop()

    def _hear(self, text: bytes) -> None:
        mark = text.find(MARK)
        if mark < 0:
            if text.startswith(SUBSCRIBED):
                self.position = self.position or json.loads(text)["position"]
                self.subscribed.set()
            return
        number = int(text[mark + len(MARK) : text.index(b"}", mark)])
        self.position = int(text[text.index(b'"position":') + 11 : text.index(b',"event"')])
        if number <= self.number:
            self.doubled += 1
            return
        if self.number:
            self.missed += number - self.number - 1
        self.number = number
        self._all.heard(number)

    def _closed(self, _code: int) -> None:
        self.closed = True


class Followers:
    """All clients of this process."""

    def __init__(self, port: int, count: int, address: str) -> None:
        self.port = port
        self.address = address
        self.connected = 0
        self._heard: dict[int, int] = defaultdict(int)
        self._all = [Follower(self) for _ in range(count)]

    def heard(self, number: int) -> None:
        """One more has heard it; the last one is told."""
        self._heard[number] += 1
        if self._heard[number] == self.connected:
            tell({"number": number, "at": time.time()})

    async def connect(self, followers: list[Follower], *, resume: bool = False) -> None:
        gate = asyncio.Semaphore(CONNECTING_MAX)

        async def one(follower: Follower) -> None:
            async with gate:
                await follower.connect(resume=resume)

        await asyncio.gather(*(one(follower) for follower in followers))

    async def run(self) -> None:
        """Connect all, then obey."""
        begun = time.perf_counter()
        await self.connect(self._all)
        self.connected = len(self._all)
        tell({"ready": time.perf_counter() - begun})
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        leaving = self._all[::2]
        while line := (await reader.readline()).decode().strip():
            if line == "drop":
                self.connected -= len(leaving)
                for follower in leaving:
                    follower.drop()
                tell({"dropped": len(leaving)})
            elif line == "resume":
                begun = time.perf_counter()
                await self.connect(leaving, resume=True)
                tell({"resumed": len(leaving), "seconds": time.perf_counter() - begun})
                self.connected += len(leaving)
            else:
                tell(
                    {
                        "missed": sum(f.missed for f in self._all),
                        "doubled": sum(f.doubled for f in self._all),
                        "behind": sum(f.number < int(line) for f in self._all),
                        "closed": sum(f.closed for f in self._all),
                    }
                )


def tell(members: dict[str, Any]) -> None:
    """One line to whoever started this."""
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise_limit()
    uvloop.run(Followers(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run())
