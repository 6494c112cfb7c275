"""Tables of providers, their nodes and devices."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from qubix.postgres.metadata import declare_sql, metadata

_NOW: Final = sa.text("now()")
_UUID: Final = pg.UUID(as_uuid=True)


def _at(name: str, *, nullable: bool = True, default: bool = False) -> sa.Column[dt.datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=_NOW if default else None)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


def _number(name: str, kind: type[sa.types.TypeEngine[int]] = sa.BigInteger) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default="0")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


providers = sa.Table(
    "providers",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("owner_id", sa.ForeignKey("users.id"), nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    _number("attempts_ended"),
    _number("attempts_faulted"),
    _at("created_at", nullable=False, default=True),
    sa.CheckConstraint("attempts_faulted BETWEEN 0 AND attempts_ended", name="attempts"),
)
nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("provider_id", sa.ForeignKey("providers.id"), nullable=False, index=True),
    sa.Column("worker_id", sa.Text, nullable=False, unique=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False),
    _text("price_class"),
    sa.Column("ray_node_id", sa.Text),
    sa.Column("state", sa.Text, nullable=False, server_default="registering"),
    _flag("paused"),
    _flag("draining"),
    _number("generation"),
    sa.Column("session", _UUID),
    _number("session_seq"),
    _number("generation_seen"),
    sa.Column("session_token_hash", sa.LargeBinary),
    _flag("socket_open"),
    _at("last_status_at"),
    _at("metrics_at"),
    _at("dead_at"),
    _text("qubix_version"),
    _text("ray_version"),
    _text("python_version"),
    _text("hostname"),
    _text("cpu_model"),
    _number("cpu_cores", sa.Integer),
    _number("ram_bytes"),
    _number("disk_bytes"),
    sa.Column("sandbox", pg.JSONB, nullable=False, server_default="{}"),
    _at("created_at", nullable=False, default=True),
    sa.CheckConstraint("length(public_key) = 32", name="public_key"),
    sa.CheckConstraint("state IN ('registering','online','offline','left')", name="state"),
    sa.CheckConstraint("region ~ '^[a-z0-9-]{1,40}$'", name="region"),
    sa.Index("nodes_ray_node_id_idx", "ray_node_id", postgresql_where=sa.text("ray_node_id IS NOT NULL")),
    sa.Index("nodes_session_token_hash_idx", "session_token_hash", postgresql_where=sa.text("session_token_hash IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)
devices = sa.Table(
    "devices",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("node_id", sa.ForeignKey("nodes.id"), nullable=False),
    sa.Column("uuid", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("vram_bytes", sa.BigInteger, nullable=False),
    sa.Column("detected_by", sa.Text, nullable=False),
    _flag("verified"),
    _flag("overheating"),
    sa.Column("heat", sa.Text, nullable=False, server_default="normal"),
    _at("gone_at"),
    sa.Column("usable", sa.Boolean, sa.Computed("gone_at IS NULL AND NOT overheating", persisted=True), nullable=False),
    sa.Column("sample", pg.JSONB),
    _at("sampled_at"),
    sa.UniqueConstraint("node_id", "uuid"),
    sa.CheckConstraint("vram_bytes > 0", name="vram_bytes"),
    sa.CheckConstraint("detected_by IN ('nvml','webgpu','webgl','declared')", name="detected_by"),
    sa.CheckConstraint("heat IN ('normal','hot','over_limit','critical')", name="heat"),
    sa.CheckConstraint("NOT verified OR detected_by = 'nvml'", name="verified"),
    postgresql_with={"fillfactor": "70"},
)
join_tokens = sa.Table(
    "join_tokens",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("provider_id", sa.ForeignKey("providers.id"), nullable=False, index=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    _at("created_at", nullable=False, default=True),
    _at("expires_at", nullable=False),
    _at("used_at"),
    sa.Column("node_id", sa.ForeignKey("nodes.id")),
    # A token that was made from a node's labels alone: whoever is in the cluster may claim any label, so it lets a new node in,
    # and never takes over the key of one that exists.
    sa.Column("by_label", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.CheckConstraint("(used_at IS NULL) = (node_id IS NULL)", name="used"),
)
node_windows = sa.Table(
    "node_windows",
    metadata,
    sa.Column("node_id", sa.ForeignKey("nodes.id"), primary_key=True),
    sa.Column("weekday", sa.SmallInteger, primary_key=True),
    sa.Column("opens", sa.SmallInteger, primary_key=True),
    sa.Column("closes", sa.SmallInteger, nullable=False),
    sa.CheckConstraint("weekday BETWEEN 0 AND 6 AND 0 <= opens AND opens < closes AND closes <= 1440", name="span"),
)
device_metrics = sa.Table(
    "device_metrics",
    metadata,
    sa.Column("device_id", sa.BigInteger, nullable=False),
    _at("at", nullable=False),
    _at("node_at", nullable=False),
    sa.Column("utilisation_pct", sa.REAL),
    sa.Column("memory_used_bytes", sa.BigInteger),
    sa.Column("temperature_c", sa.REAL),
    sa.Column("power_w", sa.REAL),
    sa.Column("cpu_pct", sa.REAL),
    sa.Column("ram_used_bytes", sa.BigInteger),
    sa.Index("device_metrics_device_id_at_idx", "device_id", sa.text("at DESC")),
    postgresql_partition_by="RANGE (at)",
)
declare_sql(__file__, "providers.sql", order=30)

declare_sql(__file__, "reputation.sql", order=92)
