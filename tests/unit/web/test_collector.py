"""A replica with many sockets is not stopped by Python's collector."""

from __future__ import annotations

import gc

from serve_app.app import collect_rarely


class Node:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.me = self


def test_a_crowd_of_objects_is_not_looked_through_while_it_grows_and_dropped_cycles_are_still_found() -> None:
    before, looks = gc.get_threshold(), []
    held: list[list[int]] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            looks.append(len(held))

    gc.callbacks.append(note)
    try:
        collect_rarely()
        held.extend([n] for n in range(1_000_000))
        assert looks == [0], "the one before they came"
        Node()
        assert gc.collect() > 0
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
        gc.unfreeze()
