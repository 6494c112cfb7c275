"""What an attempt's process tells the agent's, over the line between them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qubix.agent.fork_server import read_event, write_event
from qubix.sandbox.events import ArtefactReady, CheckpointReady, Ended, Exit, LogText, ProgressReport, RestoreFailed, SandboxEvent, Started

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
PATHS = TEXT.map(lambda text: Path("/spool") / text.replace("\0", ""))
COUNTS = st.integers(0, 2**63)
SHARES = st.floats(0, 100)
EVENTS: dict[type, st.SearchStrategy[SandboxEvent]] = {
    Started: st.builds(Started, pid=COUNTS, start_ms=SHARES),
    LogText: st.builds(LogText, offset=COUNTS, text=TEXT),
    ProgressReport: st.builds(ProgressReport, pct=SHARES, operation=TEXT),
    CheckpointReady: st.builds(CheckpointReady, path=PATHS, sha256=TEXT, pct=SHARES),
    RestoreFailed: st.builds(RestoreFailed, reason=TEXT),
    ArtefactReady: st.builds(ArtefactReady, name=TEXT, path=PATHS, sha256=TEXT),
    Ended: st.builds(Ended, detail=TEXT, log_ends=st.dictionaries(TEXT, COUNTS), rejected=st.lists(st.tuples(TEXT, TEXT)).map(tuple)),
}


@pytest.mark.parametrize("kind", get_args(SandboxEvent), ids=lambda kind: kind.__name__)
def test_every_event_arrives_as_it_was_sent(kind: type) -> None:
    @given(EVENTS[kind])
    def arrives(event: SandboxEvent) -> None:
        heard = read_event(write_event(event))
        assert (type(heard), heard) == (kind, event)

    arrives()


class Opened:
    """What would run code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the owner ran what an attempt's process sent",))


@pytest.mark.parametrize("sent", [pickle.dumps(Opened()), b"Opened {}", b"Ended", b'LogText {"stream":"out"}', b'Started {"pid":"x"}'])
def test_what_is_no_event_is_refused_and_never_run(sent: bytes) -> None:
    with pytest.raises((KeyError, ValidationError)):
        read_event(sent)


def test_an_end_keeps_its_reason_and_its_files() -> None:
    event = Ended(Exit.SIGNALLED, None, 9, "", 5, {"out": 3}, rejected=(("a", "too big"),))
    heard = read_event(write_event(event))
    assert isinstance(heard, Ended)
    assert heard.exit is Exit.SIGNALLED
    assert heard.rejected == (("a", "too big"),)
