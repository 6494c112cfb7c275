"""The leader row: one controller at a time, by epoch.

Whoever starts last raises the epoch; every transaction of a controller begins by locking the row of its own epoch FOR
SHARE. No row: another leads, and this process must exit. The lock also makes the newcomer wait for steps under way.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.errors import Conflict
from qubix.postgres.metadata import declare_sql, metadata

leaders = sa.Table(
    "leaders",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
)
declare_sql(__file__, "leader.sql", order=6)


class NotLeader(Conflict):
    """Another process leads: exit."""

    code = "not_leader"


async def take(connection: AsyncConnection, name: str, holder: str) -> int:
    """Become the leader of `name`. Returns the new epoch."""
    epoch = await connection.scalar(
        sa.text("""INSERT INTO leaders (name, epoch, holder) VALUES (:name, 1, :holder)
                   ON CONFLICT (name) DO UPDATE SET epoch = leaders.epoch + 1, holder = :holder, beat_at = clock_timestamp() RETURNING epoch"""),
        {"name": name, "holder": holder},
    )
    return int(epoch or 0)


async def hold(connection: AsyncConnection, name: str, epoch: int) -> None:
    """Prove leadership for this transaction; call it first. Raises: NotLeader."""
    row = await connection.scalar(
        sa.text("SELECT epoch FROM leaders WHERE name = :name AND epoch = :epoch FOR SHARE"), {"name": name, "epoch": epoch}
    )
    if row is None:
        raise NotLeader(f"another process leads {name!r} since epoch {epoch}", next_step="this one exits; nothing to do")


async def beat(connection: AsyncConnection, name: str, epoch: int) -> None:
    """Show that this leader is alive (/health/ready looks at it). Raises: NotLeader."""
    rows = await connection.execute(
        sa.text("UPDATE leaders SET beat_at = clock_timestamp() WHERE name = :name AND epoch = :epoch"), {"name": name, "epoch": epoch}
    )
    if rows.rowcount == 0:
        raise NotLeader(f"another process leads {name!r} since epoch {epoch}", next_step="this one exits; nothing to do")
