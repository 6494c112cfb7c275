"""The RPC client: whom it asks, how often, what it believes, and what each answer means."""

from __future__ import annotations

import asyncio
import itertools

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic.answers import Accepted, Ambiguous, Refused
from qubix.chains.qubic.endpoints import FAILURES_MAX, OPEN_S
from qubix.chains.qubic.errors import (
    InvalidIdentity,
    InvalidTransaction,
    MalformedAnswer,
    NotThere,
    RpcRefused,
    RpcUnavailable,
    TickNotYetProcessed,
    TickSkipped,
)
from qubix.chains.qubic.pace import Pace, RpcLimits
from qubix.chains.qubic.ticks import JUMP_MAX
from tests.fakes.qubic_rpc import FIRST, SECOND, HandClock, Seen, World, head, ok, processed, trouble
from tests.unit.chains.qubic.vectors import KEYS, TRANSACTIONS

OWNER = KEYS[0]["identity"]
ENCODED, TX_ID = bytes.fromhex(TRANSACTIONS[0][1]["raw_hex"]), TRANSACTIONS[0][1]["tx_id"]


def balance(tick: int, amount: str = "5", **fields: object) -> httpx.Response:
    return ok({"balance": {"id": OWNER, "balance": amount, "validForTick": tick, **fields}})


def broadcast_ok() -> httpx.Response:
    return ok({"peersBroadcasted": 3, "encodedTransaction": "", "transactionId": TX_ID})


async def test_the_first_endpoint_is_asked_and_only_when_it_fails_the_next() -> None:
    world = World()
    world.endpoints.write(SECOND, head(10))
    assert (await world.rpc.tick_info()).tick == 10
    world.endpoints.write(FIRST, head(11))
    assert (await world.rpc.tick_info()).tick == 11
    assert [base for base, _ in world.endpoints.paths()] == [FIRST, SECOND, FIRST]


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("far"),
        httpx.RemoteProtocolError("rude"),
        trouble(500, 13),
        httpx.Response(502, text="<html>"),
        httpx.Response(404, text="not found"),
        httpx.Response(403, json={"code": 5}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"tickInfo": {"tick": "eleven"}}),
        httpx.Response(302, headers={"location": "http://elsewhere.example"}),
        httpx.Response(429),
    ],
)
async def test_whatever_fails_at_one_endpoint_is_asked_of_the_other_at_once(failure: httpx.Response | Exception) -> None:
    world = World()
    world.endpoints.write(FIRST, failure)
    world.endpoints.write(SECOND, head(10))
    assert (await world.rpc.tick_info()).tick == 10
    assert world.endpoints.paths() == [(FIRST, "/live/v1/tick-info"), (SECOND, "/live/v1/tick-info")]


async def test_rounds_are_paused_longer_each_time_and_then_given_up() -> None:
    world = World(limits=RpcLimits(rounds_max=9, requests_per_s=1e9))
    world.endpoints.write(FIRST, httpx.ReadTimeout("slow"))
    world.endpoints.write(SECOND, trouble(500, 13))
    with pytest.raises(RpcUnavailable):
        await world.rpc.tick_info()
    pauses = [pause for pause in world.clock.slept if pause > 0.1]
    assert pauses[:2] == [0.5, 1.0]
    assert all(pause >= min(30.0, 0.5 * 2**n) for n, pause in enumerate(pauses))
    assert pauses[-2:] == [30.0, 30.0]


async def test_an_endpoint_that_keeps_failing_is_left_alone_for_a_while() -> None:
    world = World(limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, trouble(500, 13))
    world.endpoints.write(SECOND, head(10))
    for _ in range(FAILURES_MAX + 4):
        await world.rpc.tick_info()
    asked = [base for base, _ in world.endpoints.paths()]
    assert asked.count(FIRST) == FAILURES_MAX
    world.clock.at_s += OPEN_S
    world.endpoints.write(FIRST, head(11))
    assert (await world.rpc.tick_info()).tick == 11


async def test_malformed_answers_open_the_breaker_too_and_an_open_one_fails_at_once() -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, ok([]))
    for _ in range(FAILURES_MAX):
        with pytest.raises(MalformedAnswer):
            await world.rpc.tick_info()
    with pytest.raises(RpcUnavailable) as refused:
        await world.rpc.tick_info()
    assert 0 < refused.value.extra["retry_after_s"] <= OPEN_S
    assert len(world.endpoints.seen) == FAILURES_MAX


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("7", 7), ("Sun, 22 Nov 2026 12:00:09 GMT", 9), ("soon", 2), ("-3", 2), ("١", 2), ("", 2), ("99999999999999999999", 300)],
)
async def test_p_c06_an_endpoint_that_wants_fewer_requests_gets_none_until_then(header: str, wait_s: float) -> None:
    world = World(FIRST, limits=RpcLimits(backoff_max_s=1_000))
    world.endpoints.write(FIRST, httpx.Response(429, headers={b"Retry-After": header.encode()}), head(10))
    assert (await world.rpc.tick_info()).tick == 10
    first, second = (seen.at_s for seen in world.endpoints.seen)
    assert wait_s - 1 <= second - first <= wait_s + 0.001


async def test_a_wait_longer_than_the_longest_pause_is_told_and_not_waited() -> None:
    world = World(FIRST)
    world.endpoints.write(FIRST, httpx.Response(429, headers={"Retry-After": "120"}))
    with pytest.raises(RpcUnavailable) as refused:
        await world.rpc.tick_info()
    assert refused.value.extra["retry_after_s"] == 120
    assert len(world.endpoints.seen) == 1


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40), st.floats(0.5, 20), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_p_c06_no_window_has_more_requests_than_rate_and_burst_allow(gaps: list[float], rate: float, burst: int) -> None:
    async def run() -> list[float]:
        clock, sent = HandClock(), []
        pace = Pace(clock, rate, burst)

        async def one(gap: float) -> None:
            clock.at_s += gap
            await pace.wait()
            sent.append(clock.at_s)

        for gap in gaps:
            if gap < 1:
                await asyncio.gather(*(one(0) for _ in range(4)))
            await one(gap)
        return sent

    sent = asyncio.run(run())
    for first, last in itertools.combinations(range(len(sent)), 2):
        assert last - first + 1 <= burst + rate * (sent[last] - sent[first]) + 1e-6


async def test_five_requests_a_second_and_not_one_more() -> None:
    world = World()
    world.endpoints.write(FIRST, head(10))
    world.endpoints.write(SECOND, head(10))
    await asyncio.gather(*(world.rpc.tick_info() for _ in range(20)))
    times = [seen.at_s for seen in world.endpoints.seen]
    assert all(later - sooner >= 0.999 for sooner, later in zip(times, times[5:], strict=False))


async def test_a_tick_that_ran_backwards_is_ignored_and_asked_again() -> None:
    world = World(FIRST)
    world.endpoints.write(FIRST, head(10), head(9), head(8), head(10), head(11))
    assert [(await world.rpc.tick_info()).tick for _ in range(3)] == [10, 10, 11]
    assert len(world.endpoints.seen) == 5


async def test_an_answer_from_behind_is_never_given_though_nobody_has_a_better_one() -> None:
    world = World()
    world.endpoints.write(FIRST, processed(100))
    world.endpoints.write(SECOND, processed(100))
    assert (await world.rpc.last_processed()).tick == 100
    world.endpoints.write(FIRST, processed(99))
    world.endpoints.write(SECOND, processed(50))
    with pytest.raises(RpcUnavailable, match="older tick"):
        await world.rpc.last_processed()


async def test_one_endpoint_cannot_push_the_tick_out_of_reach() -> None:
    world = World()
    world.endpoints.write(FIRST, head(4_000_000_000))
    world.endpoints.write(SECOND, head(100))
    assert (await world.rpc.tick_info()).tick == 100
    world.endpoints.write(SECOND, head(101))
    assert (await world.rpc.tick_info()).tick == 101


async def test_both_endpoints_jumping_is_an_epoch_and_one_jumping_while_the_other_is_behind_is_not() -> None:
    world = World(limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, head(100))
    world.endpoints.write(SECOND, head(100))
    await world.rpc.tick_info()
    world.endpoints.write(FIRST, head(100 + 2 * JUMP_MAX))
    world.endpoints.write(SECOND, head(99))
    with pytest.raises(RpcUnavailable):
        await world.rpc.tick_info()
    world.endpoints.write(SECOND, head(99 + 2 * JUMP_MAX))
    assert (await world.rpc.tick_info()).tick == 99 + 2 * JUMP_MAX


async def test_a_sole_endpoints_slip_is_forgotten_and_a_jump_that_it_repeats_is_believed() -> None:
    world = World(FIRST)
    world.endpoints.write(FIRST, head(100), head(4_000_000_000), head(101), head(102), head(3_000_000_000), head(103))
    assert [(await world.rpc.tick_info()).tick for _ in range(4)] == [100, 101, 102, 103]
    world.endpoints.write(FIRST, head(103 + 2 * JUMP_MAX))
    assert (await world.rpc.tick_info()).tick == 103 + 2 * JUMP_MAX


async def test_a_pinned_client_asks_its_endpoint_alone_and_believes_its_own_ticks() -> None:
    world = World()
    world.endpoints.write(FIRST, processed(100))
    world.endpoints.write(SECOND, processed(90))
    assert (await world.rpc.last_processed()).tick in (90, 100)
    assert (await world.rpc.pinned(SECOND).last_processed()).tick == 90
    assert (await world.rpc.pinned(FIRST).last_processed()).tick == 100
    assert world.rpc.pinned(FIRST) is world.rpc.pinned(FIRST)
    with pytest.raises(ValueError, match="not in"):
        world.rpc.pinned("http://third.example")


async def test_p_b12_a_balance_is_kept_for_thirty_seconds_and_its_age_is_shown() -> None:
    world = World(FIRST)
    world.endpoints.write(FIRST, balance(100, "5"), balance(130, "6"))
    assert (await world.rpc.balance(OWNER)).age_s == 0
    world.clock.at_s += 29.5
    kept = await world.rpc.balance(OWNER)
    assert (kept.amount, kept.age_s) == (5, 29.5)
    world.clock.at_s += 0.5
    assert (await world.rpc.balance(OWNER)).amount == 6
    assert len(world.endpoints.seen) == 2


async def test_a_balance_may_be_asked_for_fresher_but_never_older() -> None:
    world = World(FIRST)
    world.endpoints.write(FIRST, balance(100, "5"), balance(101, "6"), balance(102, "7"))
    await world.rpc.balance(OWNER)
    assert (await world.rpc.balance(OWNER, max_age_s=0)).amount == 6
    world.clock.at_s += 31
    assert (await world.rpc.balance(OWNER, max_age_s=3_600)).amount == 7


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(-3, 40)), min_size=1, max_size=25))
@settings(max_examples=100, deadline=None)
def test_p_b15_a_balance_is_at_most_thirty_seconds_old_and_never_of_an_older_tick(steps: list[tuple[float, int]]) -> None:
    async def run() -> None:
        world = World(FIRST, limits=RpcLimits(rounds_max=1, requests_per_s=1e6))
        tick, seen_tick, changes = 100, 0, {0: 1_000.0}

        def answer(_: Seen) -> httpx.Response:
            return balance(tick, str(tick))

        world.endpoints.write(FIRST, answer)
        for wait_s, move in steps:
            world.clock.at_s += wait_s
            tick = max(1, tick + move)
            changes[tick] = world.clock.at_s
            try:
                found = await world.rpc.balance(OWNER)
            except RpcUnavailable:
                assert tick < seen_tick
                continue
            assert found.age_s <= 30
            assert found.amount == found.valid_for_tick >= seen_tick
            asked_at = world.endpoints.seen[-1].at_s
            assert world.clock.at_s - asked_at == pytest.approx(found.age_s, abs=0.01)
            seen_tick = found.valid_for_tick

    asyncio.run(run())


async def test_a_balance_of_somebody_else_or_from_a_node_that_lost_touch_is_no_answer() -> None:
    world = World(limits=RpcLimits(rounds_max=1))
    other = ok({"balance": {"id": KEYS[1]["identity"], "balance": "1", "validForTick": 100}})
    world.endpoints.write(FIRST, head(100))
    world.endpoints.write(SECOND, head(100))
    await world.rpc.tick_info()
    world.endpoints.write(FIRST, other)
    world.endpoints.write(SECOND, balance(60))
    with pytest.raises(RpcUnavailable):
        await world.rpc.balance(OWNER)
    with pytest.raises(InvalidIdentity):
        await world.rpc.balance(OWNER[:-1] + "A")


async def test_a_broadcast_that_was_handed_on_is_accepted_and_the_next_begins_at_the_other_endpoint() -> None:
    world = World()
    world.endpoints.write(FIRST, broadcast_ok())
    world.endpoints.write(SECOND, broadcast_ok())
    assert await world.rpc.broadcast(ENCODED) == Accepted(TX_ID, FIRST, 3)
    assert await world.rpc.broadcast(ENCODED) == Accepted(TX_ID, SECOND, 3)
    first, second = world.endpoints.seen
    assert first.body == second.body
    assert first.path == "/live/v1/broadcast-transaction"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadTimeout("no answer"),
        httpx.WriteTimeout("half sent"),
        httpx.ReadError("reset"),
        trouble(500, 13),
        trouble(400, 9),
        httpx.Response(429),
        httpx.Response(502),
        ok({"peersBroadcasted": 3, "transactionId": "a" * 60}),
        ok([]),
    ],
)
async def test_a_broadcast_that_was_sent_and_not_answered_well_may_have_been_accepted(answer: httpx.Response | Exception) -> None:
    world = World()
    world.endpoints.write(FIRST, answer)
    for second in (trouble(400, 3, "target tick has passed"), httpx.ConnectError("away")):
        world.endpoints.write(SECOND, second)
        outcome = await world.rpc.broadcast(ENCODED)
        assert isinstance(outcome, Ambiguous)
        assert outcome.endpoint == FIRST
        world.clock.at_s += 600


async def test_a_broadcast_that_all_refuse_is_refused_with_the_reason() -> None:
    world = World()
    world.endpoints.write(FIRST, trouble(400, 3, "bad signature"))
    world.endpoints.write(SECOND, trouble(400, 3, "too late"))
    assert await world.rpc.broadcast(ENCODED) == Refused(TX_ID, FIRST, "bad signature")


async def test_a_broadcast_that_never_left_is_neither_refused_nor_ambiguous() -> None:
    world = World()
    world.endpoints.write(SECOND, httpx.ConnectTimeout("far"))
    with pytest.raises(RpcUnavailable):
        await world.rpc.broadcast(ENCODED)
    with pytest.raises(InvalidTransaction):
        await world.rpc.broadcast(b"x")


async def test_each_code_has_its_meaning() -> None:
    world = World(FIRST)
    tick = world.rpc.transactions_of_tick
    world.endpoints.write(FIRST, trouble(400, 9, tickNumber=41))
    with pytest.raises(TickNotYetProcessed) as not_yet:
        await tick(50)
    assert not_yet.value.last_tick == 41
    world.endpoints.write(FIRST, trouble(400, 11, nextTickNumber="60"))
    with pytest.raises(TickSkipped) as skipped:
        await tick(50)
    assert skipped.value.next_tick == 60
    world.endpoints.write(FIRST, trouble(404, 5))
    assert await world.rpc.transaction(TX_ID) is None
    assert await world.rpc.tick_data(50) is None
    with pytest.raises(NotThere):
        await tick(50)
    world.endpoints.write(FIRST, trouble(400, 3, "bad hash"))
    with pytest.raises(RpcRefused, match="bad hash"):
        await world.rpc.transaction("x")
    assert len(world.endpoints.seen) == 6


async def test_a_skip_that_leads_nowhere_and_a_tick_that_was_there_before_are_no_answers() -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, trouble(400, 11, nextTickNumber=50))
    with pytest.raises(MalformedAnswer):
        await world.rpc.transactions_of_tick(50)
    world.endpoints.write(FIRST, processed(100))
    await world.rpc.last_processed()
    world.endpoints.write(FIRST, trouble(400, 9, tickNumber=41))
    with pytest.raises(RpcUnavailable):
        await world.rpc.transactions_of_tick(50)


async def test_a_page_not_found_by_something_else_is_not_a_missing_transaction() -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1))
    for answer in (httpx.Response(404, text="<h1>404</h1>"), httpx.Response(404, json={"error": "no route"}), httpx.Response(404)):
        world.endpoints.write(FIRST, answer)
        with pytest.raises(RpcUnavailable):
            await world.rpc.transaction(TX_ID)


async def test_an_answer_beyond_the_size_limit_is_dropped() -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1, answer_max_bytes=1_000))
    world.endpoints.write(FIRST, httpx.Response(200, content=b" " * 1_001 + b"{}"))
    with pytest.raises(MalformedAnswer, match="1000 bytes"):
        await world.rpc.tick_intervals()
