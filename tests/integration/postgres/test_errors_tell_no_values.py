"""What a database error says in a log: the statement, never its values."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from qubix.bootstrap import Resources, scope
from qubix.observability import REDACTED, redact

pytestmark = pytest.mark.postgres


async def test_a_failed_statement_shows_none_of_its_values(resources: Resources) -> None:
    with pytest.raises(DBAPIError) as failed:
        async with scope(resources) as s:
            await s.connection.execute(sa.text("SELECT :one || cast(:other AS text), 1 / 0"), {"one": "TOP-SECRET", "other": "HIDDEN"})
    assert "TOP-SECRET" not in str(failed.value)
    assert "HIDDEN" not in str(failed.value)


@pytest.mark.parametrize("prefix", ["qk_", "qs_", "qj_"])
def test_no_kind_of_credential_passes_into_a_log(prefix: str) -> None:
    assert redact(None, "info", {"event": f"refused {prefix}{'a' * 43}"})["event"] == f"refused {REDACTED}"
