"""Retry and breaker around transactions."""

from __future__ import annotations

import asyncpg
import pytest
import sqlalchemy.exc

from qubix.kernel.errors import NotFound, Unavailable
from serve_app.breaker import ATTEMPTS_MAX, FAILURES_MAX, OPEN_S, Breaker


class HandClock:
    """Time that a test advances."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


class Work:
    """A transaction that fails as told, then succeeds."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.runs = 0

    async def __call__(self) -> str:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def deadlock() -> sqlalchemy.exc.DBAPIError:
    original = asyncpg.PostgresError("x")
    original.sqlstate = "40P01"
    return sqlalchemy.exc.DBAPIError("UPDATE", {}, original)


async def test_a_lost_race_is_run_again_and_a_lasting_one_given_up() -> None:
    breaker = Breaker(HandClock())  # type: ignore[arg-type]
    work = Work(deadlock())
    assert await breaker.run(work) == "done"
    assert work.runs == 2
    work = Work(*[deadlock() for _ in range(9)])
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        await breaker.run(work)
    assert work.runs == ATTEMPTS_MAX


async def test_a_lost_connection_is_not_run_again_because_it_may_have_committed() -> None:
    work = Work(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await Breaker(HandClock()).run(work)  # type: ignore[arg-type]
    assert work.runs == 1


async def test_after_failures_in_a_row_it_opens_then_one_try_decides() -> None:
    clock = HandClock()
    breaker = Breaker(clock)  # type: ignore[arg-type]
    for _ in range(FAILURES_MAX):
        with pytest.raises(ConnectionRefusedError):
            await breaker.run(Work(ConnectionRefusedError()))
    work = Work()
    with pytest.raises(Unavailable) as refused:
        await breaker.run(work)
    assert work.runs == 0
    assert 0 < refused.value.extra["retry_after_s"] <= OPEN_S
    clock.at += OPEN_S
    assert await breaker.run(work) == "done"
    assert await breaker.run(work) == "done"


async def test_a_refusal_of_the_domain_is_no_trouble() -> None:
    breaker = Breaker(HandClock())  # type: ignore[arg-type]
    for _ in range(FAILURES_MAX * 2):
        with pytest.raises(NotFound):
            await breaker.run(Work(NotFound("x")))
    assert await breaker.run(Work()) == "done"
