"""The platform's questions over one read-only transaction."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.monitoring.model import NEWS_PAGE_MAX, Figure, Labels, News, Question
from qubix.monitoring.questions import QUESTIONS
from qubix.postgres import outbox

_STATEMENT_MAX_S: Final = 5
_AUDIT_MAX_S: Final = 25
"""Below the driver's own limit, so that the server ends it rather than the connection."""

# What each event says, and what is known of the attempt that it names. A job that runs: how long it waited, and how long after the last sign of life of the
# attempt before it, where that was lost. Any other change that names an attempt, once that has ended, told its end.
_NEWS: Final = sa.text("""
SELECT e.position, e.type, e.state, e.reason, d.state AS attempt, d.fault, d.reason AS "end", extract(epoch FROM d.ended_at - d.reported_at) AS settled_s,
       extract(epoch FROM r.running_at - coalesce(b.ended_at, j.pending_at)) AS waited_s,
       CASE WHEN b.state = 'LOST' THEN extract(epoch FROM r.running_at - b.renewed_at) END AS recovered_s
FROM (SELECT position, type, payload->>'state' AS state, payload->>'reason' AS reason,
             CASE WHEN type = 'JOB_STATUS_CHANGED' THEN (payload->>'attempt_id')::uuid END AS attempt_id
      FROM events WHERE position > :after ORDER BY position LIMIT :most) e
LEFT JOIN attempts d ON d.id = e.attempt_id AND e.state NOT IN ('ASSIGNED', 'RUNNING') AND d.ended_at IS NOT NULL
LEFT JOIN attempts r ON r.id = e.attempt_id AND e.state = 'RUNNING'
LEFT JOIN jobs j ON j.id = r.job_id
LEFT JOIN LATERAL (SELECT p.state, p.renewed_at, p.ended_at FROM attempts p WHERE p.job_id = r.job_id AND p.number < r.number AND p.counted
                   ORDER BY p.number DESC LIMIT 1) b ON true
ORDER BY e.position
""")


class MonitoringStore:
    """Args: connection, whose transaction has not begun with a statement yet."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def read_only(self, *, statement_max_s: int = _STATEMENT_MAX_S) -> None:
        """Nothing is written here, and no statement takes longer than this. Call it first."""
        await self._connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        limit = {"limit": f"{statement_max_s}s"}
        await self._connection.execute(sa.text("SELECT set_config('statement_timeout', :limit, true)"), limit)

    async def snapshot(self) -> dict[Figure, tuple[Labels, list[tuple[Labels, float]]]]:
        """Every gauge as it is now."""
        await self.read_only()
        found: dict[Figure, tuple[Labels, list[tuple[Labels, float]]]] = {}
        for question in QUESTIONS:
            rows = await self._rows(question)
            for column, figure in question.figures.items():
                values = [(_labels(row, question), float(row[column])) for row in rows if row[column] is not None]
                found[figure] = (question.labels, values)
        return found

    async def audit(self) -> list[tuple[str, int]]:
        """Each rule of the ledger's audit, with the rows that break it."""
        await self.read_only(statement_max_s=_AUDIT_MAX_S)
        return [(row.rule, row.n) for row in await self._connection.execute(sa.text("SELECT rule, n FROM audit() ORDER BY rule"))]

    async def position(self) -> int:
        """The last position that was given."""
        return await outbox.position(self._connection)

    async def news(self, after: int) -> list[News]:
        """The events published behind this position, at most NEWS_PAGE_MAX."""
        await self.read_only()
        rows = await self._connection.execute(_NEWS, {"after": after, "most": NEWS_PAGE_MAX})
        return [News(**{name: _plain(value) for name, value in row._mapping.items()}) for row in rows]

    async def _rows(self, question: Question) -> Sequence[sa.RowMapping]:
        return (await self._connection.execute(sa.text(question.sql), dict(question.given))).mappings().all()


def _labels(row: sa.RowMapping, question: Question) -> Labels:
    return tuple(str(row[name]) for name in question.labels)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
