"""A driver that joins a head which is still starting."""

from __future__ import annotations

import pytest

from qubix.fabric.head import attach


class Starting:
    """A head that refuses its first drivers. Args: refusals, how many."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.asked = refusals, 0

    def join(self) -> None:
        self.asked += 1
        if self.asked <= self.refusals:
            raise ConnectionError("no raylet yet")


def test_a_driver_that_ray_gave_up_on_tries_again() -> None:
    head = Starting(refusals=2)
    attach(head.join, pause_s=0.0)
    assert head.asked == 3


def test_a_driver_gives_up_with_rays_own_words_when_its_time_is_over() -> None:
    head = Starting(refusals=9)
    with pytest.raises(ConnectionError, match="no raylet yet"):
        attach(head.join, timeout_s=-1.0)
    assert head.asked == 1
