"""The fault policy is total and closed; the sweeper's judgement by the clock."""

from __future__ import annotations

import dataclasses
import datetime as dt
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.agent.protocol import Exit
from qubix.jobs.model import AttemptState, AttemptStep, Fault, JobState
from qubix.kernel.money import Qu
from qubix.scheduling.faults import Ending, judge, waits_for_death
from qubix.scheduling.model import Live, Rules, overdue

endings = st.builds(
    Ending,
    exit=st.sampled_from(Exit),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    node_died=st.booleans(),
    cancel_requested=st.booleans(),
    restore_failed=st.booleans(),
    killed_elsewhere=st.booleans(),
    cut_short=st.booleans(),
)


@given(endings, st.booleans())
def test_every_ending_has_a_verdict_and_only_exit_0_is_success(ending: Ending, retry_own: bool) -> None:
    verdict = judge(ending, retry_own_failures=retry_own)
    assert (verdict.step is AttemptStep.SUCCEED) == (ending.exit is Exit.EXITED and ending.exit_code == 0)
    assert (verdict.fault is Fault.NONE) == (verdict.step in (AttemptStep.SUCCEED, AttemptStep.CANCEL))
    assert verdict.reason
    if verdict.fault in (Fault.PROVIDER, Fault.PLATFORM):
        assert verdict.retry
    if verdict.fault is Fault.CONSUMER and not retry_own:
        assert not verdict.retry


@pytest.mark.parametrize("exit", [Exit.OUT_OF_MEMORY, Exit.TIME_LIMIT, Exit.DISK_LIMIT, Exit.OUTPUT_FLOOD])
def test_the_jobs_own_limits_are_the_consumers(exit: Exit) -> None:
    verdict = judge(Ending(exit))
    assert (verdict.step, verdict.fault, verdict.retry) == (AttemptStep.FAIL, Fault.CONSUMER, False)


@pytest.mark.parametrize("signal", [2, 9, 11, 14, 15])
def test_no_signal_that_a_job_can_send_itself_makes_its_work_free(signal: int) -> None:
    verdict = judge(Ending(Exit.SIGNALLED, signal=signal))
    assert (verdict.fault, verdict.reason, verdict.retry) == (Fault.CONSUMER, "signal", False)


def test_a_sandbox_killed_from_outside_is_the_providers_fault_once() -> None:
    assert judge(Ending(Exit.KILLED, signal=9)).fault is Fault.PROVIDER
    assert judge(Ending(Exit.KILLED, signal=9)).retry
    assert judge(Ending(Exit.KILLED, signal=9, killed_elsewhere=True)).fault is Fault.CONSUMER


def test_a_dead_node_means_lost_not_failed() -> None:
    assert judge(Ending(Exit.SIGNALLED, signal=9, node_died=True)).step is AttemptStep.LOSE
    assert judge(Ending(Exit.EXITED, exit_code=1, node_died=True)).step is AttemptStep.LOSE
    assert judge(Ending(Exit.EXITED, exit_code=0, node_died=True)).step is AttemptStep.SUCCEED


def test_only_a_signal_of_a_machine_going_down_waits_for_news_of_the_node() -> None:
    assert waits_for_death(Ending(Exit.KILLED, signal=9))
    assert waits_for_death(Ending(Exit.SIGNALLED, signal=9))
    assert not waits_for_death(Ending(Exit.SIGNALLED, signal=9, cancel_requested=True))
    assert not waits_for_death(Ending(Exit.SIGNALLED, signal=9, node_died=True))
    assert not waits_for_death(Ending(Exit.SIGNALLED, signal=11))
    assert not waits_for_death(Ending(Exit.EXITED, exit_code=1))


NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ONE = UUID(int=1)


def ago(seconds: float) -> dt.datetime:
    return NOW - dt.timedelta(seconds=seconds)


LIVE = Live(
    attempt_id=ONE,
    job_id=ONE,
    owner_id=ONE,
    node_id=ONE,
    provider_id=ONE,
    job_state=JobState.RUNNING,
    state=AttemptState.RUNNING,
    number=1,
    fence=1,
    counted=1,
    declines=0,
    attempts_max=3,
    retry_own_failures=False,
    rate=Qu(3600),
    limit_ms=600_000,
    now=NOW,
    created_at=ago(60),
    renewed_at=ago(1),
    running_at=ago(50),
    reported_at=None,
    start_deadline_at=ago(40),
    cancel_requested_at=None,
    node_dead_at=None,
    socket_open=True,
    exit=None,
    exit_code=None,
    signal=None,
    reason_detail=None,
    restore_failed=False,
    killed_elsewhere=False,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"renewed_at": ago(20)}, None),
        ({"renewed_at": ago(20.1)}, "lease_expired"),
        ({"renewed_at": ago(300), "reported_at": ago(1)}, None),
        ({"renewed_at": ago(300), "state": AttemptState.LOST}, None),
        ({"node_dead_at": ago(1)}, None),
        ({"node_dead_at": ago(1), "socket_open": False}, "node_lost"),
        ({"socket_open": False}, None),
        ({"state": AttemptState.CREATED, "start_deadline_at": ago(-1), "renewed_at": ago(300)}, None),
        ({"state": AttemptState.CREATED, "start_deadline_at": ago(1)}, "not_accepted"),
        ({"state": AttemptState.ACCEPTED, "start_deadline_at": ago(-1)}, None),
        ({"state": AttemptState.ACCEPTED, "start_deadline_at": ago(1)}, "not_started"),
        ({"state": AttemptState.ACCEPTED, "start_deadline_at": ago(-1), "renewed_at": ago(21)}, "lease_expired"),
        ({"running_at": ago(629)}, None),
        ({"running_at": ago(631)}, "results_late"),
        ({"running_at": ago(631), "storage_failed": True}, "storage_failed"),
        ({"running_at": ago(629), "storage_failed": True}, None),
        ({"renewed_at": ago(21), "storage_failed": True}, "storage_failed"),
        ({"cancel_requested_at": ago(9)}, None),
        ({"cancel_requested_at": ago(11)}, "cancelled"),
        ({"cancel_requested_at": ago(1), "state": AttemptState.CREATED}, "cancelled"),
    ],
)
def test_the_sweeper_ends_what_is_over_and_nothing_else(changes: dict[str, object], reason: str | None) -> None:
    verdict = overdue(dataclasses.replace(LIVE, **changes), Rules())  # type: ignore[arg-type]
    assert (None if verdict is None else verdict.reason) == reason


def test_a_consumer_never_answers_for_what_only_silence_says() -> None:
    late = overdue(dataclasses.replace(LIVE, running_at=ago(631)), Rules())
    assert late is not None
    assert (late.step, late.fault, late.retry) == (AttemptStep.LOSE, Fault.PROVIDER, True)


def test_nobody_else_answers_for_the_platforms_own_storage() -> None:
    for changes in ({"running_at": ago(631)}, {"renewed_at": ago(21)}, {"node_dead_at": ago(1), "socket_open": False}):
        verdict = overdue(dataclasses.replace(LIVE, storage_failed=True, **changes), Rules())
        assert verdict is not None
        assert (verdict.fault, verdict.retry) == (Fault.PLATFORM, True)


@pytest.mark.parametrize(
    ("ran_s", "agent_ms", "fault"),
    [
        (600, 600_000, Fault.CONSUMER),
        (3600, 600_200, Fault.CONSUMER),  # the results took long
        (575, 600_200, Fault.CONSUMER),  # the start was told late
        (3600, 599_999, Fault.PROVIDER),
        (20, 600_000, Fault.PROVIDER),  # the agent's clock alone proves nothing
        (20, None, Fault.PROVIDER),
    ],
)
def test_a_time_limit_is_the_consumers_only_if_both_clocks_show_that_it_was_reached(
    ran_s: float, agent_ms: int | None, fault: Fault
) -> None:
    live = dataclasses.replace(
        LIVE, running_at=ago(ran_s + 1), reported_at=ago(1), exit=Exit.TIME_LIMIT.value, agent_ms=agent_ms, limit_ms=600_000
    )
    assert judge(live.ending()).fault is fault
