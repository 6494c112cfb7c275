"""Lines: what a job's attempts earn."""

from __future__ import annotations

import datetime as dt
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qubix.escrow.model import (
    EARNING_WAYS,
    ESCROW_WAYS,
    AttemptEnd,
    EarningState,
    EscrowState,
    Fault,
    Outcome,
    Use,
    apportion,
    average_hourly_rate,
    is_open,
    lines,
    metered_ms,
    paid_ms,
    ruled_shares,
    settled_state,
)
from qubix.kernel.money import MS_PER_HOUR, Qu, charge

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
PAYEE = UUID(int=7)


def use(
    *,
    ran: dt.timedelta = HOUR,
    end: AttemptEnd = AttemptEnd.SUCCEEDED,
    fault: Fault = Fault.NONE,
    rate: int = 100,
    limit_ms: int = 10**9,
    agent_ms: int | None = None,
    cancel_after: dt.timedelta | None = None,
    checkpoint_ms: int = 0,
    restore_failed: bool = False,
    attempt: str = "a",
) -> Use:
    return Use(
        attempt=attempt,
        payee=PAYEE,
        rate=Qu(rate),
        limit_ms=limit_ms,
        end=end,
        fault=fault,
        running_at=START,
        until=START + ran,
        agent_ms=agent_ms,
        cancel_requested_at=None if cancel_after is None else START + cancel_after,
        checkpoint_ms=checkpoint_ms,
        restore_failed=restore_failed,
    )


uses = st.builds(
    use,
    ran=st.timedeltas(dt.timedelta(minutes=-1), dt.timedelta(days=3)),
    end=st.sampled_from(AttemptEnd),
    fault=st.sampled_from(Fault),
    rate=st.one_of(st.integers(1, 10**6), st.integers(1, 2**62)),
    limit_ms=st.integers(0, 10**9),
    agent_ms=st.one_of(st.none(), st.integers(0, 10**9)),
    cancel_after=st.one_of(st.none(), st.timedeltas(dt.timedelta(minutes=-5), dt.timedelta(days=4))),
    checkpoint_ms=st.integers(0, 10**9),
    restore_failed=st.booleans(),
    attempt=st.uuids().map(str),
)


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (AttemptEnd.SUCCEEDED, Fault.NONE),
        (AttemptEnd.CANCELLED, Fault.NONE),
        (AttemptEnd.FAILED, Fault.CONSUMER),
        (AttemptEnd.ALIVE, Fault.NONE),
    ],
)
def test_what_ran_for_the_consumer_is_metered_whole(end: AttemptEnd, fault: Fault) -> None:
    assert [line.gross for line in lines([use(end=end, fault=fault)], Qu(1000))] == [100]


@pytest.mark.parametrize(
    ("end", "fault"), [(AttemptEnd.LOST, Fault.NONE), (AttemptEnd.FAILED, Fault.PROVIDER), (AttemptEnd.FAILED, Fault.PLATFORM)]
)
def test_a_lost_attempt_earns_what_its_checkpoint_preserved(end: AttemptEnd, fault: Fault) -> None:
    half = MS_PER_HOUR // 2
    assert lines([use(end=end, fault=fault)], Qu(1000))[0].gross == 0
    assert lines([use(end=end, fault=fault, checkpoint_ms=half)], Qu(1000))[0].gross == 50
    assert lines([use(end=end, fault=fault, checkpoint_ms=9 * MS_PER_HOUR)], Qu(1000))[0].gross == 100
    assert lines([use(end=end, fault=fault, checkpoint_ms=half, restore_failed=True)], Qu(1000))[0].gross == 0
    assert lines([use(end=end, fault=fault, checkpoint_ms=half)], Qu(1000), full_refund=True)[0].gross == 0


def test_the_full_refund_policy_pays_nothing_for_a_failed_job_and_the_winner_of_a_completed_one() -> None:
    lost = use(end=AttemptEnd.LOST, checkpoint_ms=MS_PER_HOUR)
    own_fault = use(end=AttemptEnd.FAILED, fault=Fault.CONSUMER)
    assert [x.gross for x in lines([lost, own_fault], Qu(999), outcome=Outcome.FAILED, full_refund=True)] == [0, 0]
    assert [x.gross for x in lines([lost, use()], Qu(999), outcome=Outcome.COMPLETED, full_refund=True)] == [0, 100]
    assert [x.gross for x in lines([own_fault], Qu(999), outcome=Outcome.FAILED)] == [100]


def test_the_stricter_clock_the_limit_and_the_cancellation_bound_the_metered_time() -> None:
    assert metered_ms(use()) == MS_PER_HOUR
    assert metered_ms(use(agent_ms=1000)) == 1000
    assert metered_ms(use(agent_ms=10**9)) == MS_PER_HOUR
    assert metered_ms(use(limit_ms=5)) == 5
    assert metered_ms(use(cancel_after=dt.timedelta(seconds=2))) == 2000
    assert metered_ms(use(cancel_after=dt.timedelta(seconds=-2))) == 0


def test_an_attempt_that_never_ran_has_no_line() -> None:
    assert lines([Use("a", PAYEE, Qu(5), 10, AttemptEnd.LOST, Fault.NONE, None, None)], Qu(10)) == ()


@settings(max_examples=300)
@given(attempts=st.lists(uses, max_size=5), funded=st.integers(0, 2**62), full_refund=st.booleans(), outcome=st.sampled_from(Outcome))
def test_p_a08_lines_never_exceed_what_was_funded_or_what_was_metered(
    attempts: list[Use], funded: int, full_refund: bool, outcome: Outcome
) -> None:
    found = lines(attempts, Qu(funded), outcome=outcome, full_refund=full_refund)
    assert sum(line.gross for line in found) <= funded
    for attempt, line in zip(attempts, found, strict=True):
        assert 0 <= line.gross <= attempt.rate * line.metered_ms // MS_PER_HOUR
        assert paid_ms(attempt, full_refund=full_refund) <= metered_ms(attempt) <= attempt.limit_ms


@settings(max_examples=300)
@given(
    attempt=uses.filter(lambda u: u.cancel_requested_at is None), funded=st.integers(0, 2**62), parts=st.lists(st.floats(0, 1), max_size=6)
)
def test_p_b30_live_earnings_rise_and_end_equal_to_the_settled_amount(attempt: Use, funded: int, parts: list[float]) -> None:
    assert attempt.running_at is not None
    assert attempt.until is not None
    whole = max(attempt.until - attempt.running_at, dt.timedelta())
    end = Use(attempt.attempt, PAYEE, attempt.rate, attempt.limit_ms, AttemptEnd.SUCCEEDED, Fault.NONE, START, START + whole)
    settled = lines([end], Qu(funded), outcome=Outcome.COMPLETED)[0].gross
    shown = []
    for part in [*sorted(parts), 1.0]:
        live = Use(attempt.attempt, PAYEE, attempt.rate, attempt.limit_ms, AttemptEnd.ALIVE, Fault.NONE, START, START + whole * part)
        shown.append(lines([live], Qu(funded))[0].gross)
    assert shown == sorted(shown)
    assert shown[-1] == settled


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=20))
@example([])
def test_p_b33_the_average_hourly_rate_is_earnings_over_hours(finished: list[tuple[int, int]]) -> None:
    earned, ran = sum(a for a, _ in finished), sum(ms for _, ms in finished)
    found = average_hourly_rate(finished)
    if ran == 0:
        assert found == 0
    else:
        assert found * ran <= earned * MS_PER_HOUR < (found + 1) * ran


@settings(max_examples=300)
@given(rate=st.integers(0, 2**62), ms=st.integers(0, 10**10), left=st.integers(0, 2**62))
def test_p_b43_a_cost_is_duration_times_rate_rounded_once(rate: int, ms: int, left: int) -> None:
    exact = rate * ms
    found = charge(Qu(rate), ms, Qu(left))
    assert found == left or found * MS_PER_HOUR <= exact < (found + 1) * MS_PER_HOUR
    assert lines([use(rate=max(1, rate), ran=dt.timedelta(milliseconds=ms), limit_ms=ms)], Qu(left))[0].gross == charge(
        Qu(max(1, rate)), ms, Qu(left)
    )


@settings(max_examples=300)
@given(total=st.integers(0, 2**62), weights=st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any))
def test_members_of_a_cluster_share_the_total_to_the_unit(total: int, weights: list[int]) -> None:
    parts = apportion(Qu(total), weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert 0 <= part - total * weight // sum(weights) <= 1
        assert weight or not part


def test_money_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody"):
        apportion(Qu(5), [0, 0])
    assert apportion(Qu(0), [0, 0]) == (0, 0)


@settings(max_examples=300)
@given(to_payee=st.integers(0, 2**62), gross=st.lists(st.integers(0, 2**60), max_size=6))
def test_a_ruling_is_shared_to_the_unit_and_no_line_gains(to_payee: int, gross: list[int]) -> None:
    shares = ruled_shares(Qu(to_payee), [Qu(x) for x in gross])
    assert sum(shares) == min(to_payee, sum(gross))
    assert all(0 <= share <= whole for share, whole in zip(shares, gross, strict=True))


@pytest.mark.parametrize("state", EscrowState)
def test_an_escrow_ends_and_stays_ended(state: EscrowState) -> None:
    assert is_open(state) == (state in (EscrowState.PENDING, EscrowState.LOCKED, EscrowState.DISPUTED))
    assert state not in ESCROW_WAYS[state]
    assert EscrowState.PENDING not in ESCROW_WAYS[state]


def test_the_ways_of_an_earning_lead_to_an_end() -> None:
    assert {state for state, ways in EARNING_WAYS.items() if not ways} == {EarningState.PAID, EarningState.REVERSED, EarningState.SPLIT}
    assert EARNING_WAYS[EarningState.PENDING] == {EarningState.PAID, EarningState.FROZEN}


@pytest.mark.parametrize(
    ("outcome", "paid", "metered", "state"),
    [
        (Outcome.COMPLETED, 5, 5, EscrowState.RELEASED),
        (Outcome.COMPLETED, 0, 0, EscrowState.RELEASED),
        (Outcome.COMPLETED, 3, 5, EscrowState.SPLIT),
        (Outcome.COMPLETED, 0, 5, EscrowState.REFUNDED),
        (Outcome.FAILED, 0, 0, EscrowState.REFUNDED),
        (Outcome.FAILED, 5, 5, EscrowState.SPLIT),
        (Outcome.CANCELLED, 5, 5, EscrowState.SPLIT),
        (Outcome.CANCELLED, 0, 0, EscrowState.REFUNDED),
    ],
)
def test_how_an_escrow_ends(outcome: Outcome, paid: int, metered: int, state: EscrowState) -> None:
    assert settled_state(outcome, Qu(paid), Qu(metered)) is state
