"""SQL of log pieces: an attempt stores each byte of a stream once, and no more than its limit, whatever its agent sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Log, Stream
from qubix.scheduling.model import AGENT_LOG_BYTES_MAX

_BESIDE: Final = {Stream.OUT: "err", Stream.ERR: "out"}

# Pieces of a stream never overlap, so of all that begin before a new one's end, the last reaches furthest: one look in the index.
# The job's two streams share one limit, as they do in the sandbox; the agent's own lines have theirs.
_ADD_LOG: Final = sa.text("""
INSERT INTO log_chunks (attempt_id, stream, "offset", text, node_at)
SELECT cast(:attempt AS uuid), cast(:stream AS text), cast(:offset AS bigint), cast(:text AS text), to_timestamp(:node_at)
WHERE NOT EXISTS (
    SELECT FROM (SELECT "offset" + octet_length(text) AS until FROM log_chunks
                 WHERE attempt_id = :attempt AND stream = :stream AND "offset" < :until ORDER BY "offset" DESC LIMIT 1) before
    WHERE before.until > :offset)
  AND :until + coalesce((SELECT "offset" + octet_length(text) FROM log_chunks
                         WHERE attempt_id = :attempt AND stream = :beside ORDER BY "offset" DESC LIMIT 1), 0) <= :most
ON CONFLICT DO NOTHING
""")

# Two sessions of one node may speak at the same moment: without this, neither would see the other's overlapping pieces.
_LOCK_LOGS: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('log/' || :attempt, 0))")

# Per stream, where the text stops being contiguous from 0.
_LOG_ENDS: Final = sa.text("""
SELECT stream, min(reached) FILTER (WHERE next IS NULL OR next > reached) AS reached FROM (
    SELECT stream, max("offset" + octet_length(text)) OVER w AS reached, lead("offset") OVER w AS next, min("offset") OVER (PARTITION BY stream) AS first
    FROM log_chunks WHERE attempt_id = :id WINDOW w AS (PARTITION BY stream ORDER BY "offset")) s
WHERE first = 0 GROUP BY stream
""")


async def add(connection: AsyncConnection, pieces: Sequence[tuple[Log, int]]) -> None:
    """Store pieces, each with its attempt's `log_bytes_max`.

    A repeat, what overlaps a stored piece, and what passes the limit change nothing. PostgreSQL's text holds no NUL, so it
    becomes '?' (one byte as well).
    """
    for attempt in sorted({str(piece.attempt) for piece, _ in pieces}):
        await connection.execute(_LOCK_LOGS, {"attempt": attempt})
    await connection.execute(
        _ADD_LOG,
        [
            {
                "attempt": piece.attempt,
                "stream": piece.stream.value,
                "beside": _BESIDE.get(piece.stream),
                "most": AGENT_LOG_BYTES_MAX if piece.stream is Stream.AGENT else most,
                "offset": piece.offset,
                "until": piece.offset + len(piece.text.encode()),
                "text": piece.text.replace("\0", "?"),
                "node_at": min(max(piece.node_at, 0.0), 1e11),
            }
            for piece, most in pieces
        ],
    )


async def ends(connection: AsyncConnection, attempt_id: UUID) -> dict[str, int]:
    """Per stream, where its text stops being contiguous."""
    return {row.stream: int(row.reached or 0) for row in await connection.execute(_LOG_ENDS, {"id": attempt_id})}
