"""The table of uploads, and its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.intake.model import Upload
from qubix.postgres.metadata import declare_sql, metadata

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("owner_id", sa.ForeignKey("users.id"), nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("sha256", sa.ForeignKey("blobs.sha256"), nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    sa.UniqueConstraint("owner_id", "filename", "sha256"),
    sa.CheckConstraint("size >= 0", name="size"),
    sa.CheckConstraint("length(filename) BETWEEN 1 AND 200", name="filename"),
)
declare_sql(__file__, "intake.sql", order=50)


class IntakeStore:
    """Reads and writes uploads."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def used(self, owner_id: UUID, *, lock: bool) -> tuple[int, int]:
        """(bytes, files) of an account. `lock` makes the account's next upload wait until this transaction ends."""
        if lock:
            await self._connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(hashtextextended('upload' || :o, 0))"), {"o": str(owner_id)}
            )
        row = (
            await self._connection.execute(
                sa.text("SELECT coalesce(sum(size), 0)::bigint AS bytes, count(*) AS files FROM uploads WHERE owner_id = :owner"),
                {"owner": owner_id},
            )
        ).one()
        return int(row.bytes), int(row.files)

    async def find(self, owner_id: UUID, filename: str, sha256: str) -> Upload | None:
        """The account's upload of these bytes under this name."""
        statement = sa.text("SELECT * FROM uploads WHERE owner_id = :owner AND filename = :name AND sha256 = :sha")
        row = (await self._connection.execute(statement, {"owner": owner_id, "name": filename, "sha": sha256})).one_or_none()
        return None if row is None else _upload(row)

    async def add(self, upload_id: UUID, owner_id: UUID, filename: str, sha256: str, size: int) -> Upload:
        """Insert an upload; its blob's row must be there."""
        statement = sa.text(
            "INSERT INTO uploads (id, owner_id, filename, sha256, size) VALUES (:id, :owner, :name, :sha, :size) RETURNING *"
        )
        values = {"id": upload_id, "owner": owner_id, "name": filename, "sha": sha256, "size": size}
        return _upload((await self._connection.execute(statement, values)).one())

    async def owned(self, owner_id: UUID, ids: Sequence[UUID]) -> list[Upload]:
        """Those of these uploads that belong to the account."""
        statement = sa.text("SELECT * FROM uploads WHERE owner_id = :owner AND id = ANY(:ids)").bindparams(
            sa.bindparam("ids", type_=pg.ARRAY(pg.UUID(as_uuid=True)))
        )
        return [_upload(row) for row in await self._connection.execute(statement, {"owner": owner_id, "ids": list(ids)})]

    async def page(self, owner_id: UUID, before: UUID | None, limit: int) -> list[Upload]:
        """An account's uploads, newest first, behind `before`."""
        statement = sa.text("""SELECT * FROM uploads WHERE owner_id = :owner AND (cast(:before AS uuid) IS NULL OR id < :before)
                               ORDER BY id DESC LIMIT :most""")
        return [_upload(row) for row in await self._connection.execute(statement, {"owner": owner_id, "before": before, "most": limit})]

    async def remove(self, owner_id: UUID, upload_id: UUID) -> bool:
        """Delete an upload of the account; its blob is collected later. False when there is none."""
        statement = sa.text("DELETE FROM uploads WHERE owner_id = :owner AND id = :id")
        return (await self._connection.execute(statement, {"owner": owner_id, "id": upload_id})).rowcount == 1


def _upload(row: Any) -> Upload:
    return Upload(row.id, row.filename, row.sha256, row.size, row.created_at)
