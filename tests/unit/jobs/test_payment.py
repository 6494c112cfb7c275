"""What becomes of jobs that wait for a payment, over any wallet and anything that the chain shows."""

from __future__ import annotations

import dataclasses
import datetime as dt
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.jobs.payment import Next, Request, Shown, allot, asked, decide, memo_of, proved
from qubix.kernel.money import Qu
from qubix.treasury.arrivals import Arrival, ArrivalState, awaited_tick, is_held_up

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
OWNER = UUID(int=99)
ADDRESS = "A" * 60


def at(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


def request(n: int = 1, ceiling: int = 100, **members: object) -> Request:
    """Job n, asked for n seconds after the moment 100 s ago, with its quote still good."""
    given = {"amount": Qu(ceiling), "asked_at": at(n - 100), "expires_at": at(60), "extended": False, "shown": Shown(missing=Qu(ceiling))}
    return Request(UUID(int=n), OWNER, None, ADDRESS, Qu(ceiling), **{**given, **members})  # type: ignore[arg-type]


def arrival(n: int, amount: int, state: ArrivalState = ArrivalState.SEEN, confirmations: int = 0, *, job: int | None = None) -> Arrival:
    """Payment n, seen n seconds after the moment 50 s ago."""
    memo = memo_of(UUID(int=job)).encode() if job else b""
    seen = at(n - 50)
    return Arrival(f"tx{n}", 0, ADDRESS, Qu(amount), 1000 + n, "PAYER", memo, state, confirmations, seen, seen)


states = st.sampled_from(ArrivalState)
amounts = st.integers(1, 60)
requests = st.lists(
    st.builds(lambda ceiling, seconds, extended: (ceiling, seconds, extended), amounts, st.sampled_from([-1, 0, 30]), st.booleans()),
    max_size=4,
).map(lambda found: [request(n + 1, c, expires_at=at(s), extended=e) for n, (c, s, e) in enumerate(found)])
arrivals = st.lists(st.tuples(amounts, states, st.integers(0, 3), st.one_of(st.none(), st.integers(1, 5))), max_size=6).map(
    lambda found: [arrival(n + 1, amount, state, count, job=job) for n, (amount, state, count, job) in enumerate(found)]
)


@given(requests=requests, arrivals=arrivals, available=st.integers(0, 200))
def test_p_b16_no_job_is_funded_without_its_whole_ceiling_and_no_two_from_the_same_money(
    requests: list[Request], arrivals: list[Arrival], available: int
) -> None:
    decisions = decide(requests, Qu(available), arrivals, NOW)
    assert set(decisions) == {request.job_id for request in requests}
    funded = [request for request in requests if decisions[request.job_id].next is Next.FUND]
    assert sum(request.ceiling for request in funded) <= available
    left = available - sum(request.ceiling for request in funded)
    for request in requests:
        decision = decisions[request.job_id]
        assert (decision.next is Next.LATE) == (request.expires_at is not None and request.expires_at <= NOW)
        if decision.next in (Next.EXTEND, Next.TELL, Next.WAIT):
            assert left < request.ceiling, "what the wallet can pay is paid"
        if decision.next is Next.EXTEND:
            assert not request.extended


@given(request_ceiling=amounts, arrivals=arrivals, shown=st.integers(0, 3))
def test_p_b21_the_shown_count_is_proved_of_the_whole_amount_and_never_falls(
    request_ceiling: int, arrivals: list[Arrival], shown: int
) -> None:
    waiting = request(1, request_ceiling, shown=Shown(Qu(0), Qu(0), shown, ()))
    decision = decide([waiting], Qu(0), arrivals, NOW)[waiting.job_id]
    count = decision.shown.confirmations
    assert count >= shown
    if count > shown:
        covering = sum(a.amount for a in arrivals if a.state is not ArrivalState.GONE and a.proved >= count)
        assert covering >= request_ceiling, "it never runs ahead of what the chain has proved"


@given(arrivals=arrivals, data=st.data())
def test_p_b21_while_proofs_come_the_count_rises_step_by_step(arrivals: list[Arrival], data: st.DataObject) -> None:
    waiting, before = request(1, 60), 0
    came: list[Arrival] = []
    for new in arrivals:
        came = [
            dataclasses.replace(old, confirmations=data.draw(st.integers(old.confirmations, 3))) if old.state is ArrivalState.SEEN else old
            for old in came
        ] + [new]
        decision = decide([waiting], Qu(0), came, NOW)[waiting.job_id]
        assert decision.shown.confirmations >= before
        before = decision.shown.confirmations
        waiting = dataclasses.replace(waiting, shown=decision.shown)
    assert proved(allot([waiting], came)[waiting.job_id], waiting.amount) <= before


@given(requests=requests, arrivals=arrivals)
def test_p_b17_a_payment_counts_for_one_job_and_one_that_names_a_job_for_no_other(requests: list[Request], arrivals: list[Arrival]) -> None:
    shares = allot(requests, arrivals)
    counted = [other.tx_id for share in shares.values() for other in share]
    assert len(counted) == len(set(counted))
    names = {request.memo.encode(): request.job_id for request in requests}
    for job_id, share in shares.items():
        assert all(names.get(other.memo, job_id) == job_id for other in share)


def test_what_funded_another_job_counts_for_no_further_one() -> None:
    (share,) = allot([request()], [arrival(1, 100)], taken={"tx1"}).values()
    assert share == []


def test_a_payment_from_before_the_request_does_not_count_for_it() -> None:
    (share,) = allot([request(asked_at=at(0))], [arrival(1, 100)]).values()
    assert share == []


@pytest.mark.parametrize(
    ("available", "came", "step", "missing"),
    [
        (0, [], Next.WAIT, 100),
        (40, [], Next.TELL, 60),
        (100, [], Next.FUND, 0),
        (0, [arrival(1, 100)], Next.EXTEND, 0),
        (0, [arrival(1, 70)], Next.EXTEND, 30),
        (70, [arrival(1, 70, ArrivalState.CREDITED)], Next.EXTEND, 30),
        (0, [arrival(1, 70, ArrivalState.GONE)], Next.WAIT, 100),
        (130, [arrival(1, 130, ArrivalState.CREDITED)], Next.FUND, 0),
    ],
)
def test_a_waiting_job_by_what_has_come(available: int, came: list[Arrival], step: Next, missing: int) -> None:
    waiting = request()
    decision = decide([waiting], Qu(available), came, NOW)[waiting.job_id]
    assert (decision.next, decision.shown.missing) == (step, missing)


def test_late_or_called_off_a_job_is_not_funded_however_much_there_is() -> None:
    for waiting in (request(expires_at=NOW), request(cancelling=True)):
        assert decide([waiting], Qu(1000), [], NOW)[waiting.job_id].next is Next.LATE


def test_what_is_known_already_is_not_told_again() -> None:
    waiting = request(extended=True)
    first = decide([waiting], Qu(0), [arrival(1, 60)], NOW)[waiting.job_id]
    assert first.next is Next.TELL
    again = dataclasses.replace(waiting, shown=first.shown)
    assert decide([again], Qu(0), [arrival(1, 60)], NOW)[waiting.job_id].next is Next.WAIT


@pytest.mark.parametrize(("available", "promised", "amount"), [(0, 0, 100), (40, 0, 60), (40, 30, 90), (40, 100, 100), (99, 0, 1)])
def test_asked_for_is_what_the_wallet_lacks_beside_what_other_jobs_wait_for(available: int, promised: int, amount: int) -> None:
    assert asked(Qu(100), Qu(available), promised) == amount


def test_a_memo_fits_into_a_transactions_payload() -> None:
    assert len(memo_of(UUID(int=2**128 - 1)).encode()) <= 880


def test_a_wait_is_reckoned_to_the_last_tick_that_is_awaited() -> None:
    assert awaited_tick([]) is None
    assert awaited_tick([arrival(1, 1), arrival(3, 1), arrival(9, 1, ArrivalState.CREDITED)]) == 1003


def test_held_up_is_a_payment_that_lacks_its_second_proof_for_a_minute_or_is_doubtful() -> None:
    waiting = arrival(1, 1, ArrivalState.WAITING, 2)
    assert not is_held_up([waiting], at(0))
    assert is_held_up([waiting], at(20))
    assert is_held_up([arrival(1, 1, ArrivalState.DOUBTFUL)], at(-49))
