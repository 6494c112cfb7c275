"""The schema of the first release; its SQL is frozen by `python -m migrations.freeze`."""

from __future__ import annotations

from migrations.steps import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file of this revision."""
    run_sql(__file__)
