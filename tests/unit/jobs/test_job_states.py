"""The state tables of jobs and attempts, every pair of them, and the progress rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.jobs.model import (
    ATTEMPT_LIVE,
    ATTEMPT_TABLE,
    JOB_TABLE,
    AttemptState,
    AttemptStep,
    JobState,
    JobStep,
    WrongStep,
    attempt_after,
    job_after,
    progress_after,
)


@pytest.mark.parametrize(("state", "step"), list(itertools.product(JobState, JobStep)))
def test_a_job_takes_exactly_the_steps_of_its_table(state: JobState, step: JobStep) -> None:
    if (state, step) in JOB_TABLE:
        assert job_after(state, step) is JOB_TABLE[state, step]
    else:
        with pytest.raises(WrongStep):
            job_after(state, step)


@pytest.mark.parametrize(("state", "step"), list(itertools.product(AttemptState, AttemptStep)))
def test_an_attempt_takes_exactly_the_steps_of_its_table(state: AttemptState, step: AttemptStep) -> None:
    if (state, step) in ATTEMPT_TABLE:
        assert attempt_after(state, step) is ATTEMPT_TABLE[state, step]
    else:
        with pytest.raises(WrongStep):
            attempt_after(state, step)


def test_nothing_follows_an_end_and_every_other_state_can_be_cancelled() -> None:
    for state in JobState:
        steps = {step for known, step in JOB_TABLE if known is state}
        assert (steps == set()) is state.final
        assert state.final or JobStep.CANCEL in steps
    for attempt in AttemptState:
        assert ({step for known, step in ATTEMPT_TABLE if known is attempt} == set()) is (attempt not in ATTEMPT_LIVE)


def test_a_job_completes_only_from_running_and_an_attempt_succeeds_only_from_running() -> None:
    assert [state for state, step in JOB_TABLE if step is JobStep.COMPLETE] == [JobState.RUNNING]
    assert [state for state, step in ATTEMPT_TABLE if step is AttemptStep.SUCCEED] == [AttemptState.RUNNING]


def test_every_state_is_reached_from_the_first() -> None:
    for table, first, states in ((JOB_TABLE, JobState.DRAFT, set(JobState)), (ATTEMPT_TABLE, AttemptState.CREATED, set(AttemptState))):
        reached = {first}
        for _ in states:
            reached |= {after for (before, _), after in table.items() if before in reached}
        assert reached == states


@given(st.lists(st.floats(min_value=-50, max_value=150)))
def test_p_a07_progress_never_falls_stays_below_100_and_ends_at_100_on_success(reports: list[float]) -> None:
    seen = [0.0]
    for reported in reports:
        seen.append(progress_after(seen[-1], reported))
    assert seen == sorted(seen)
    assert all(0 <= value < 100 for value in seen)
    assert progress_after(seen[-1], 0, ended_well=True) == 100.0
