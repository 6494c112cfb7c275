"""Tables of scheduling, and the gathering point of its SQL (placement_store, frame_store, beat_store, end_store)."""

from __future__ import annotations

import sqlalchemy as sa

from qubix.postgres.metadata import declare_sql, metadata
from qubix.scheduling.beat_store import Beat, BeatStore
from qubix.scheduling.end_store import EndStore
from qubix.scheduling.frame_store import FrameStore
from qubix.scheduling.placement_store import PlacementStore

sweeper_beats = sa.Table(
    "sweeper_beats",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("gap_s", sa.Float, nullable=False, server_default="0"),
    # When the last pause that was too long ended.
    sa.Column("resumed_at", sa.DateTime(timezone=True)),
)
declare_sql(__file__, "scheduling.sql", order=80)

__all__ = ["Beat", "BeatStore", "EndStore", "FrameStore", "PlacementStore", "sweeper_beats"]
