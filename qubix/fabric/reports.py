"""What the fabric daemon tells the database: three functions of the narrow role qubix_fabric, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

_SEEN = sa.text("SELECT node_seen(:worker_id, :ray_node_id)")
_TOKEN = sa.text("SELECT token FROM issue_join_token(:provider)")
_DEAD = sa.text("SELECT node_dead(:ray_node_id)")


class SqlNodeReports:
    """NodeReports over PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Args: engine, of the role qubix_fabric."""
        self._engine = engine

    async def node_seen(self, worker_id: str, ray_node_id: str, labels: Mapping[str, str]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(_SEEN, {"worker_id": worker_id, "ray_node_id": ray_node_id})

    async def node_dead(self, ray_node_id: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(_DEAD, {"ray_node_id": ray_node_id})

    async def join_token(self, provider_id: UUID) -> str | None:
        async with self._engine.begin() as connection:
            token: str | None = await connection.scalar(_TOKEN, {"provider": provider_id})
            return token
