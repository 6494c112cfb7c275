"""How often a job is looked at, where nothing but looking holds its limits."""

from __future__ import annotations

import pytest

from qubix.sandbox.run import LOOK_S, look_pause_s


@pytest.mark.parametrize(("took_s", "used_s", "pause_s"), [(0.001, 0.001, LOOK_S), (0.2, 0.2, 2.0), (3.0, 0.01, 3.0), (3.0, 0.5, 5.0)])
def test_a_look_is_made_up_for_and_a_machine_that_stood_still_leaves_no_job_alone_for_long(
    took_s: float, used_s: float, pause_s: float
) -> None:
    assert look_pause_s(took_s, used_s) == pause_s
