"""Alembic's environment: one connection over asyncpg, given by `qubix.postgres.migrate`."""

from __future__ import annotations

from typing import Any

from alembic import context

from qubix.postgres.schema import load


def declared(_table: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Partitions are made by the database as days go by; the metadata declares their parent only."""
    return not (kind == "table" and name is not None and name.startswith("device_metrics_"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=load(),
    transaction_per_migration=True,
    include_object=declared,
)
with context.begin_transaction():
    context.run_migrations()
