"""Alembic's environment: one connection over asyncpg, given by `qubix.postgres.migrate`."""

from __future__ import annotations

from alembic import context

from qubix.postgres.schema import load

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=load(), transaction_per_migration=True, compare_server_default=False)
with context.begin_transaction():
    context.run_migrations()
