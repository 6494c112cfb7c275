"""The sweep's own links: they do what they say."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.sweep.links import Links
from tests.faults.sweep.schedule import Mode


class Echo:
    """A server that answers what it is sent, and counts its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while piece := one.recv(100):
                self.received += piece
                one.sendall(piece)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def links(echo: Echo) -> Iterator[Links]:
    found = Links()
    found.open("it", echo.port)
    yield found
    found.close()


def reach(links: Links) -> socket.socket:
    return socket.create_connection(("127.0.0.1", links.port("it")), timeout=5)


def asked(one: socket.socket, text: bytes) -> bytes:
    one.sendall(text)
    return one.recv(100)


def until(holds: object, timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_open_link_carries_both_ways_and_ends_with_either_side(links: Links, echo: Echo) -> None:
    with reach(links) as one:
        assert asked(one, b"a") == b"a"
        one.shutdown(socket.SHUT_WR)
        assert one.recv(10) == b""


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.DELAY])
def test_what_is_sent_while_nothing_passes_arrives_afterwards(links: Links, echo: Echo, mode: Mode) -> None:
    with reach(links) as one:
        asked(one, b"a")
        links.turn("it", mode)
        one.sendall(b"b")
        assert echo.received == b"a"
        links.turn("it", Mode.OPEN)
        assert one.recv(10) == b"b"


def test_a_cut_link_resets_what_is_open_and_takes_nothing_new(links: Links) -> None:
    with reach(links) as one:
        asked(one, b"a")
        links.turn("it", Mode.CUT)
        with pytest.raises(ConnectionResetError):
            one.recv(10)
        with pytest.raises(ConnectionResetError), reach(links) as other:
            other.recv(10)
    links.turn("it", Mode.OPEN)
    with reach(links) as again:
        assert asked(again, b"b") == b"b"


def test_a_half_open_link_is_silent_and_then_reset(links: Links) -> None:
    with reach(links) as one:
        asked(one, b"a")
        links.turn("it", Mode.HALF_OPEN)
        one.sendall(b"b")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(10)
        links.turn("it", Mode.OPEN)
        one.settimeout(5)
        with pytest.raises(ConnectionResetError):
            one.recv(10)


def test_a_duplicating_link_sends_everything_twice_and_answers_once(links: Links, echo: Echo) -> None:
    links.turn("it", Mode.DUPLICATE)
    with reach(links) as one:
        assert asked(one, b"ab") == b"ab"
        until(lambda: echo.received == b"abab")
        assert echo.connections == 2
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(10)
