"""Published events in PostgreSQL, read in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.live.feed import Bounds
from qubix.postgres import outbox
from qubix.postgres.outbox import Published

_AFTER: Final = sa.text("""
SELECT position, type, topics, subject_id, payload, created_at FROM events WHERE position > :after ORDER BY position LIMIT :most
""")


class PostgresReader:
    """An EventReader over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def bounds(self) -> Bounds:
        """See EventReader."""
        return Bounds(await outbox.oldest(self._connection), await outbox.position(self._connection))

    async def after(self, position: int, limit: int) -> list[Published]:
        """See EventReader."""
        rows = await self._connection.execute(_AFTER, {"after": position, "most": limit})
        return [Published(r.position, r.type, tuple(r.topics), r.subject_id, r.payload, r.created_at) for r in rows]

    async def matching(self, topics: Sequence[str], *, after: int, upto: int, limit: int) -> list[Published]:
        """See EventReader."""
        found = await outbox.read(self._connection, list(topics), after=after, most=limit)
        return [event for event in found if event.position <= upto]
