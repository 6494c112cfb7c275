"""A WebSocket client as cheap as one can be in Python, so that thousands of them leave the processor to the server.

No compression; the mask is zero, so a payload goes out as it is. Pings are answered, pieces are put together.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable, Mapping
from typing import Final, cast

_TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_MASKED: Final = 0x80
_NO_MASK: Final = b"\0\0\0\0"


class Socket(asyncio.Protocol):
    """One open connection.

    Args: request, the bytes of the upgrade; on_text, called with every text message; on_close, with the close code (1006: torn).
    """

    def __init__(self, request: bytes, on_text: Callable[[bytes], None], on_close: Callable[[int], None]) -> None:
        self._request = request
        self._on_text = on_text
        self._on_close = on_close
        self._buffer = b""
        self._code = 1006
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes
        self.transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(error or ConnectionError("closed during the handshake"))
            self.open.exception()
        self._on_close(self._code)

    def data_received(self, piece: bytes) -> None:
        self._buffer += piece
        if not self.open.done():
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.open.set_exception(ConnectionError(head[:300].decode(errors="replace")))
                self.transport.close()
                return
            self._buffer = rest
            self.open.set_result(None)
        while (frame := _next(self._buffer)) is not None:
            opcode, payload, size = frame
            self._buffer = self._buffer[size:]
            if opcode == _TEXT:
                self._on_text(payload)
            elif opcode == _PING:
                self._send(_PONG, payload)
            elif opcode == _CLOSE:
                self._code = int.from_bytes(payload[:2], "big") if payload else 1005
                self._send(_CLOSE, payload[:2])
                self.transport.close()

    def send(self, text: bytes) -> None:
        """Send one text message."""
        self._send(_TEXT, text)

    def ping(self) -> None:
        """As an agent does, to learn that the line is dead."""
        self._send(_PING, b"")

    def drop(self) -> None:
        """Vanish without a word, as a laptop that is closed."""
        self.transport.abort()

    def _send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, _MASKED | size))
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, _MASKED | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, _MASKED | 127, size)
        self.transport.write(head + _NO_MASK + payload)


def _next(buffer: bytes) -> tuple[int, bytes, int] | None:
    """(opcode, payload, bytes used) of the first whole frame."""
    if len(buffer) < 2:
        return None
    size, begin = buffer[1] & 0x7F, 2
    if size == 126:
        size, begin = int.from_bytes(buffer[2:4], "big"), 4
    elif size == 127:
        size, begin = int.from_bytes(buffer[2:10], "big"), 10
    if len(buffer) < begin + size:
        return None
    if not buffer[0] & 0x80:
        raise NotImplementedError("the servers measured here send whole messages")
    return buffer[0] & 0x0F, buffer[begin : begin + size], begin + size


def upgrade(host: str, path: str, headers: Mapping[str, str] = {}) -> bytes:
    """The request that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += [f"Sec-WebSocket-Key: {key}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
