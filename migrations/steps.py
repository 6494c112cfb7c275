"""What a migration may do: run its SQL file, under a lock time-out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

LOCK_TIMEOUT_MS = 5_000


def run_sql(migration: str) -> None:
    """Execute the `.sql` file beside `migration` (pass `__file__`) as one script in the migration's transaction."""
    script = Path(migration).with_suffix(".sql").read_text()
    adapted: Any = op.get_bind().connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};\n{script}"))
