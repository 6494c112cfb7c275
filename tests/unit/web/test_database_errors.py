"""Which errors of the database say: not now. The edge answers them with 503, whichever layer raised them."""

from __future__ import annotations

import asyncpg
import pytest
import sqlalchemy as sa

from serve_app.errors import is_database_trouble

PASSING = [
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.DiskFullError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.AdminShutdownError,
]


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_trouble_of_the_database_from_the_driver_and_from_above_it(kind: type[asyncpg.PostgresError]) -> None:
    error = kind("why")
    assert is_database_trouble(error)
    assert is_database_trouble(sa.exc.DBAPIError("SELECT", {}, error))


@pytest.mark.parametrize("kind", [asyncpg.exceptions.CheckViolationError, asyncpg.exceptions.InsufficientPrivilegeError])
def test_what_no_patience_mends_is_not(kind: type[asyncpg.PostgresError]) -> None:
    assert not is_database_trouble(kind("why"))
