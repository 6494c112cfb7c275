"""Errors know a category, the table knows HTTP."""

from __future__ import annotations

import json

import asyncpg
import pytest
import sqlalchemy.exc

from qubix.kernel import errors
from qubix.market.model import OfferTaken
from serve_app.errors import CrossSite, is_database_trouble, is_passing_conflict, problem_of, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Invalid("x"), 422),
        (errors.TooLarge("x"), 413),
        (errors.Unauthenticated("x"), 401),
        (CrossSite("x"), 403),
        (errors.Unpaid("x"), 402),
        (errors.NotFound("x"), 404),
        (errors.Conflict("x"), 409),
        (OfferTaken("x"), 409),
        (errors.Limited("x"), 429),
        (errors.Unavailable("x"), 503),
        (errors.QubixError("x"), 500),
    ],
)
def test_every_category_has_its_status(error: errors.QubixError, status: int) -> None:
    assert status_of(error) == status == problem_of(error).status_code


def test_every_category_of_the_kernel_is_in_the_table() -> None:
    categories = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.QubixError)]
    assert [kind.__name__ for kind in categories if kind is not errors.QubixError and status_of(kind("x")) == 500] == []


def test_a_problem_carries_code_next_step_and_the_errors_own_members() -> None:
    answer = problem_of(errors.Unpaid("not enough", next_step="add 5", missing=5))
    body = json.loads(bytes(answer.body))
    assert (body["code"], body["detail"], body["next_step"], body["missing"]) == ("insufficient_funds", "not enough", "add 5", 5)
    assert answer.media_type == "application/problem+json"


def test_the_wait_is_whole_seconds_and_at_least_what_was_said() -> None:
    assert problem_of(errors.Limited("x", retry_after_s=1.2)).headers["retry-after"] == "2"


def test_an_error_without_a_category_says_nothing_of_itself() -> None:
    assert "secret" not in bytes(problem_of(errors.QubixError("secret detail")).body).decode()


def failed(state: str) -> sqlalchemy.exc.DBAPIError:
    original = asyncpg.PostgresError("x")
    original.sqlstate = state
    return sqlalchemy.exc.DBAPIError("SELECT 1", {}, original)


@pytest.mark.parametrize(
    ("state", "trouble", "again"),
    [("40P01", True, True), ("40001", True, True), ("57P03", True, False), ("53100", True, False), ("23505", False, False)],
)
def test_a_full_disk_is_trouble_a_lost_race_may_be_run_again_and_a_broken_rule_is_neither(state: str, trouble: bool, again: bool) -> None:
    assert (is_database_trouble(failed(state)), is_passing_conflict(failed(state))) == (trouble, again)
    bare = failed(state).orig
    assert bare is not None
    assert (is_database_trouble(bare), is_passing_conflict(bare)) == (trouble, again), "an act of money, straight from the driver"
