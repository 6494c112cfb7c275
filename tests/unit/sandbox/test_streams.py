"""From a job's bytes to events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.sandbox.streams import CHUNK_MAX_BYTES, FLUSH_S, LINE_MAX_BYTES, Budget, ControlStream, LogStream, Message


def drained(stream: LogStream, now: float = 0.0) -> bytes:
    return b"".join(event.text.encode() for event in stream.take(now))


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_p_offsets_count_the_bytes_that_were_handed_out(pieces: list[bytes]) -> None:
    stream = LogStream("out", Budget(1 << 20))
    offset, text = 0, ""
    for number, piece in enumerate([*pieces, b""]):
        stream.feed(piece, end=number == len(pieces))
        for event in stream.take(float(number)):
            assert event.offset == offset
            assert "\0" not in event.text
            offset += len(event.text.encode())
            text += event.text
    assert text == b"".join(pieces).decode(errors="replace").replace("\0", "\ufffd")
    assert stream.offset == offset


@given(st.lists(st.sampled_from(["x" * 9000, "ü" * 5000, "€uro" * 3000, "\n", "a\n", "b"]), max_size=20))
def test_p_no_line_is_longer_than_the_limit(pieces: list[str]) -> None:
    stream = LogStream("out", Budget(1 << 30))
    for piece in pieces:
        stream.feed(piece.encode())
    text = drained(stream)
    assert all(len(line) <= LINE_MAX_BYTES for line in text.split(b"\n"))
    assert text.decode().replace("\n", "") == "".join(pieces).replace("\n", "")


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=40), st.integers(0, 1000))
def test_p_kept_and_dropped_bytes_stay_in_the_budget(pieces: list[bytes], allowed: int) -> None:
    budget = Budget(allowed)
    streams = LogStream("out", budget), LogStream("err", budget)
    for number, piece in enumerate(pieces):
        streams[number % 2].feed(piece)
    kept = sum(len(drained(stream)) for stream in streams)
    assert kept <= allowed
    assert budget.left + kept <= allowed


def test_the_first_text_is_due_at_once_and_the_next_a_little_later() -> None:
    stream = LogStream("out", Budget(1 << 20))
    assert stream.due_s(10.0) is None
    stream.feed(b"first\n")
    assert stream.due_s(10.0) == 0.0
    assert drained(stream, 10.0) == b"first\n"
    stream.feed(b"second\n")
    assert stream.due_s(10.0) == pytest.approx(FLUSH_S)
    stream.feed(b"x" * CHUNK_MAX_BYTES)
    assert stream.due_s(10.0) == 0.0


def test_chunks_are_bounded_and_never_cut_a_character() -> None:
    stream = LogStream("out", Budget(1 << 20))
    stream.feed(("€" * 100 + "\n").encode() * 500)
    events = stream.take(0.0)
    assert len(events) > 1
    assert all(len(event.text.encode()) <= CHUNK_MAX_BYTES for event in events)
    assert "".join(event.text for event in events) == ("€" * 100 + "\n") * 500


def test_a_character_split_over_two_reads_is_whole() -> None:
    stream = LogStream("out", Budget(1 << 20))
    stream.feed("€".encode()[:2])
    stream.feed("€".encode()[2:])
    assert drained(stream) == "€".encode()


def test_dropped_output_is_counted_until_it_is_a_flood() -> None:
    budget = Budget(10)
    stream = LogStream("out", budget)
    stream.feed(b"0123456789abcdef")
    assert drained(stream) == b"0123456789"
    assert budget.dropped == 6
    assert not budget.flooded
    stream.feed(bytes(65 << 20))
    assert budget.flooded


def test_messages_are_read_across_pieces() -> None:
    control = ControlStream()
    assert control.feed(b'{"pct": 4', 0.0) == []
    assert control.feed(b'2.5, "operation": "epoch"}\n{"checkpoint": "7", "pct": 50}\n{"restore_failed": "torn"}\n', 0.0) == [
        Message(42.5, "epoch"),
        Message(50.0, checkpoint="7"),
        Message(restore_failed="torn"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"[]",
        b"7",
        b'{"pct": NaN}',
        b'{"pct": 101}',
        b'{"pct": -1}',
        b'{"pct": true}',
        b'{"pct": "5"}',
        b'{"operation": "x"}',
    ]
    + [json.dumps({"checkpoint": name, "pct": 1}).encode() for name in ("", ".", "..", "a/b", "../x", "ü", "a" * 33)]
    + [b"[" * 4000, b"{" * 4000, b'{"pct": 5, "operation": "' + b"x" * 5000 + b'"}'],
)
def test_a_malformed_message_is_skipped_and_the_next_is_read(line: bytes) -> None:
    control = ControlStream()
    assert control.feed(line + b'\n{"pct": 5}\n', 0.0) == [Message(5.0)]


def test_an_endless_message_is_not_kept() -> None:
    control = ControlStream()
    for _ in range(100):
        control.feed(b"x" * 65536, 0.0)
        assert len(control._waiting) <= 4096
    assert control.feed(b'\n{"pct": 5}\n', 0.0) == [Message(5.0)]


def test_a_flood_of_messages_is_thinned_out_but_time_earns_more() -> None:
    control = ControlStream()
    flood = b'{"pct": 1}\n' * 12_000
    assert len(control.feed(flood, 0.0)) == 10_000
    assert control.feed(flood, 0.0) == []
    assert len(control.feed(flood, 10.0)) == 200


@given(st.text(max_size=300))
def test_p_text_of_a_message_is_fit_for_a_database(text: str) -> None:
    (message,) = ControlStream().feed(json.dumps({"pct": 1, "operation": text}).encode() + b"\n", 0.0)
    message.operation.encode()
    assert "\0" not in message.operation
    assert len(message.operation) <= 200
