"""The sweep's own parts: a schedule that replays, links that do what they say."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.places import places
from tests.faults.sweep.links import Links
from tests.faults.sweep.recovery import HEAD, KILLED, Wound, recovery, steps, without_a_device_s
from tests.faults.sweep.schedule import RARE, Deed, Fault, Mode, deck, schedule


def test_a_seed_gives_the_same_faults_again_and_another_seed_others() -> None:
    assert list(schedule(7, 200)) == list(schedule(7, 200))
    assert list(schedule(7, 200)) != list(schedule(8, 200))
    assert list(schedule(7, 50)) == list(schedule(7, 200))[:50]


def test_as_many_faults_as_the_deck_has_cards_are_each_of_them_once() -> None:
    dealt = Counter((one.deed, one.target, one.mode) for one in schedule(3, len(deck())))
    assert dealt == Counter((one.deed, one.target, one.mode) for one in deck())


def test_every_place_of_the_code_is_struck() -> None:
    struck = {kind.target.partition("/")[0] for kind in deck() if kind.deed is Deed.STRIKE}
    assert struck | RARE == set(places())


def test_a_job_that_waited_when_the_head_was_killed_counts_as_the_heads() -> None:
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    after = [began + dt.timedelta(seconds=seconds) for seconds in range(60)]
    killed = Wound(KILLED, after[0], "n", Fault(1, Deed.KILL, "raylet", 0, 0.0))
    head = Wound(HEAD, after[30], None, Fault(2, Deed.KILL, "head", None, 0.0))
    assert recovery(killed, after[10], "j", [killed, head]).seconds == 10
    late = recovery(killed, after[50], "j", [killed, head])
    assert (late.promise, late.seconds, late.detail) == (HEAD, 20, "#1 kill raylet, then #2 kill head, job j")


def test_a_late_job_says_when_it_was_assigned_again_and_how_often_it_never_ran() -> None:
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    killed = Wound(KILLED, began, "n", Fault(1, Deed.KILL, "raylet", 0, 0.0))
    row = {"ended_at": began + dt.timedelta(seconds=10), "created_at": began + dt.timedelta(seconds=50)}
    assert steps(killed, {**row, "between": 0}, 0.0) == "given up after 10.0 s, assigned after 50.0 s"
    assert steps(killed, {**row, "between": 2}, 0.0) == "given up after 10.0 s, assigned after 50.0 s, after 2 that never ran"
    assert steps(killed, {**row, "between": 0}, 7.0) == "given up after 10.0 s, assigned after 50.0 s, 7.0 s of it without a free device"


@pytest.mark.parametrize(("devices", "waited_s"), [(1, 10), (2, 25)])
def test_a_job_waits_for_a_device_while_no_other_machine_has_as_many_free(devices: int, waited_s: float) -> None:
    at = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds) for seconds in range(61)]
    gap = {"ended_at": at[10], "created_at": at[50], "devices": devices}
    taken = [("b", 0, 30, 1), ("b", 20, 35, 1), ("c", 5, 30, 2), ("c", 30, 60, 1)]
    rows = [{"node_id": node, "created_at": at[since], "ended_at": at[until], "devices": count} for node, since, until, count in taken]
    assert without_a_device_s(gap, rows) == waited_s
    assert without_a_device_s(gap, []) == 0


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
