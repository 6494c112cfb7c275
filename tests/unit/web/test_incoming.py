"""Room for the PUTs of one attempt."""

from __future__ import annotations

import contextlib
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.errors import Limited, TooLarge
from serve_app.incoming import Incoming

ONE, OTHER = uuid4(), uuid4()


@given(st.lists(st.tuples(st.integers(0, 60) | st.none(), st.booleans()), max_size=20))
def test_puts_under_way_never_hold_more_than_the_attempt_may_store(asked: list[tuple[int | None, bool]]) -> None:
    incoming, held = Incoming(), contextlib.ExitStack()
    total = 0
    for size, ends in asked:
        if ends:
            held.close()
            total = 0
        with contextlib.suppress(Limited):
            total += held.enter_context(incoming.room(ONE, 100, size, of=100))
        assert total <= 100
    held.close()
    assert incoming._taken == {}


def test_what_can_never_fit_is_told_apart_from_what_must_wait() -> None:
    incoming = Incoming()
    with incoming.room(ONE, 100, 60, of=100):
        with pytest.raises(TooLarge), incoming.room(ONE, 100, 101, of=100):
            pass
        with pytest.raises(Limited), incoming.room(ONE, 100, 60, of=100):
            pass
        with incoming.room(OTHER, 100, 60, of=100) as other:
            assert other == 60
    with incoming.room(ONE, 100, None, of=100) as all_of_it:
        assert all_of_it == 100
