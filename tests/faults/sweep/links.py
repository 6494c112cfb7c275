"""A TCP port in front of another, which delays, drops, cuts, forgets or repeats what passes. One thread serves all links."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Final

from tests.faults.sweep.schedule import Mode

PIECE_BYTES: Final = 1 << 16
DELAY_S: Final = 0.4


class Link:
    """One of them. Args: port, of the far end, on the loopback; the link's own port is `port` once it is open."""

    def __init__(self, far_port: int) -> None:
        self.port = 0
        self.mode = Mode.OPEN
        self._far_port = far_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._far: set[asyncio.StreamWriter] = set()

    async def serve(self) -> asyncio.Server:
        """Open the near end."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def turn(self, mode: Mode) -> None:
        """Change what it does; call in its loop."""
        self.mode = mode
        for event, shut in ((self._flows, Mode.DROP), (self._speaks, Mode.HALF_OPEN)):
            if mode is shut:
                event.clear()
            else:
                event.set()
        if mode is Mode.CUT:
            _abort(self._open | self._far)
        elif mode is Mode.HALF_OPEN:
            _abort(self._far)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.mode is Mode.CUT:
                _abort({writer})
                return
            with contextlib.suppress(OSError):
                await self._flows.wait()
                if self.mode is not Mode.HALF_OPEN:
                    await self._join(reader, writer)
            if not self._speaks.is_set():  # half open: silence, and then a reset, as from a machine that was started anew
                await self._speaks.wait()
                _abort({writer})
        finally:
            self._open.discard(writer)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far = await asyncio.open_connection("127.0.0.1", self._far_port)
        copies, swallowing = [far], []
        if self.mode is Mode.DUPLICATE:
            twin_reader, twin = await asyncio.open_connection("127.0.0.1", self._far_port)
            copies.append(twin)
            swallowing.append(asyncio.create_task(_swallow(twin_reader)))
        self._far.update(copies)
        tasks = [asyncio.create_task(work) for work in (self._pump(reader, copies), self._pump(far_reader, [writer]))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in [*tasks, *swallowing]:
                task.cancel()
            await asyncio.gather(*tasks, *swallowing, return_exceptions=True)
            self._far.difference_update(copies)
            for copy in copies:
                copy.close()

    async def _pump(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await self._flows.wait()
            if self.mode is Mode.DELAY:
                await asyncio.sleep(DELAY_S)
            for writer in writers:
                writer.write(piece)
                await writer.drain()


class Links:
    """The thread, and its links by name."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()
        self._servers: list[asyncio.Server] = []
        self._links: dict[str, Link] = {}

    def open(self, name: str, far_port: int) -> int:
        """A new link. Returns: its own port."""
        link = self._links[name] = Link(far_port)
        self._servers.append(self._do(link.serve()))
        return link.port

    def port(self, name: str) -> int:
        """A link's own port."""
        return self._links[name].port

    def turn(self, name: str, mode: Mode) -> None:
        """Change what a link does."""

        async def work() -> None:
            self._links[name].turn(mode)

        self._do(work())

    def close(self) -> None:
        """End all of it."""

        async def work() -> None:
            for server in self._servers:
                server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._do(work())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


async def _swallow(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(PIECE_BYTES):
            pass


def _abort(writers: set[asyncio.StreamWriter]) -> None:
    """Close by a reset, not by an end."""
    for writer in writers:
        with contextlib.suppress(OSError, AttributeError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
