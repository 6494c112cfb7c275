"""The tables of jobs: what was asked for, each attempt at it, and what the attempts sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from qubix.jobs.model import AttemptState, Fault, JobState
from qubix.postgres.metadata import declare_sql, metadata

_NOW = sa.text("clock_timestamp()")


def _moment(name: str, *, required: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not required, server_default=_NOW if required else None)


def _uuid(name: str, *constraints: Any, required: bool = True) -> sa.Column[Any]:
    return sa.Column(name, pg.UUID(as_uuid=True), *constraints, nullable=not required)


def _one_of(column: str, values: type[StrEnum]) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(value.value) for value in values)})", name=column)


blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("unreferenced_since", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    sa.CheckConstraint("size >= 0", name="size"),
    sa.Index("blobs_unreferenced_idx", "unreferenced_since"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    _uuid("owner_id", sa.ForeignKey("users.id")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("params", pg.JSONB, nullable=False),
    sa.Column("needs", pg.JSONB, nullable=False),
    sa.Column("limits", pg.JSONB, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("attempts_max", sa.Integer, nullable=False, server_default="3"),
    sa.Column("rate_max", sa.BigInteger, nullable=False),
    sa.Column("ceiling", sa.BigInteger, nullable=False),
    sa.Column("duration_max_s", sa.Integer, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    _uuid("quote_id", required=False),
    _uuid("offer_id", required=False),
    sa.Column("retry_own_failures", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("wait_s", sa.Integer, nullable=False),
    sa.Column("progress", sa.Float, nullable=False, server_default="0"),
    sa.Column("operation", sa.Text, nullable=False, server_default=""),
    sa.Column("reason", sa.Text),
    sa.Column("reason_detail", sa.Text),
    sa.Column("unplaceable", pg.JSONB),
    _uuid("restore_attempt_id", required=False),
    sa.Column("restore_n", sa.Integer),
    _moment("wait_until"),
    _moment("cancel_requested_at"),
    _moment("created_at", required=True),
    _moment("pending_at"),
    _moment("started_at"),
    _moment("ended_at"),
    _one_of("state", JobState),
    sa.CheckConstraint("rate_max > 0 AND ceiling > 0 AND duration_max_s > 0 AND attempts_max > 0", name="amounts"),
    sa.CheckConstraint("progress BETWEEN 0 AND 100 AND (progress < 100 OR state = 'COMPLETED')", name="progress"),
    sa.CheckConstraint("(ended_at IS NOT NULL) = (state IN ('COMPLETED', 'FAILED', 'CANCELLED'))", name="ended"),
    sa.Index("jobs_owner_idx", "owner_id", sa.text("created_at DESC"), sa.text("id DESC")),
    sa.Index("jobs_pending_idx", "pending_at", "id", postgresql_where=sa.text("state = 'PENDING'")),
    sa.Index("jobs_live_idx", "id", postgresql_where=sa.text("state IN ('ASSIGNED', 'RUNNING')")),
    sa.Index("jobs_awaiting_idx", "owner_id", "id", postgresql_where=sa.text("state = 'AWAITING_FUNDS'")),
)

payment_requests = sa.Table(
    "payment_requests",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("address", sa.ForeignKey("chain_addresses.identity"), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False, comment="what was missing in the wallet when it was asked for"),
    _moment("asked_at", required=True),
    sa.Column("extended", sa.Boolean, nullable=False, server_default=sa.false(), comment="its quote got the one extension"),
    sa.Column("received", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("missing", sa.BigInteger, nullable=False),
    sa.Column("confirmations", sa.SmallInteger, nullable=False, server_default="0", comment="as shown: proved once of the whole amount"),
    sa.Column("tx_ids", pg.ARRAY(sa.Text), nullable=False, server_default="{}", comment="the payments that count for the job"),
    sa.Column("paid_at", sa.DateTime(timezone=True), comment="when the escrow was funded; NULL: it waits, or it was never paid"),
    sa.CheckConstraint("amount > 0 AND received >= 0 AND missing >= 0 AND confirmations BETWEEN 0 AND 3", name="amounts"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    _uuid("job_id", sa.ForeignKey("jobs.id")),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    _uuid("node_id", sa.ForeignKey("nodes.id")),
    _uuid("provider_id", sa.ForeignKey("providers.id")),
    _uuid("offer_id", sa.ForeignKey("offers.id")),
    sa.Column("rate", sa.BigInteger, nullable=False),
    sa.Column("limit_ms", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="CREATED"),
    sa.Column("device_uuids", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("counted", sa.Boolean, nullable=False, server_default=sa.true()),
    _moment("created_at", required=True),
    _moment("accepted_at"),
    _moment("running_at"),
    _moment("renewed_at", required=True),
    _moment("start_deadline_at"),
    _moment("reported_at"),
    _moment("storage_failed_at"),
    _moment("ended_at"),
    sa.Column("exit", sa.Text),
    sa.Column("exit_code", sa.Integer),
    sa.Column("signal", sa.Integer),
    sa.Column("reason", sa.Text),
    sa.Column("reason_detail", sa.Text),
    sa.Column("fault", sa.Text),
    sa.Column("agent_ms", sa.BigInteger),
    sa.Column("metered_ms", sa.BigInteger),
    sa.Column("charge", sa.BigInteger),
    _uuid("restore_attempt_id", sa.ForeignKey("attempts.id"), required=False),
    sa.Column("resumed_from", sa.Integer),
    sa.Column("restore_failed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("progress", sa.Float, nullable=False, server_default="0"),
    _one_of("state", AttemptState),
    _one_of("fault", Fault),
    sa.CheckConstraint("rate > 0 AND limit_ms > 0 AND metered_ms >= 0 AND charge >= 0", name="amounts"),
    sa.CheckConstraint("metered_ms <= limit_ms", name="metered"),
    sa.CheckConstraint("(ended_at IS NULL) = (state IN ('CREATED', 'ACCEPTED', 'RUNNING'))", name="ended"),
    sa.UniqueConstraint("job_id", "fence"),
    sa.UniqueConstraint("job_id", "number"),
    sa.Index("attempts_one_live_key", "job_id", unique=True, postgresql_where=sa.text("state IN ('CREATED', 'ACCEPTED', 'RUNNING')")),
    sa.Index("attempts_node_live_idx", "node_id", postgresql_where=sa.text("state IN ('CREATED', 'ACCEPTED', 'RUNNING')")),
    sa.Index("attempts_node_idx", "node_id", "ended_at"),
    sa.Index("attempts_provider_idx", "provider_id", "created_at"),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    _uuid("attempt_id", sa.ForeignKey("attempts.id")),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, sa.ForeignKey("blobs.sha256"), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("ran_ms", sa.BigInteger, nullable=False),
    _moment("created_at", required=True),
    sa.PrimaryKeyConstraint("attempt_id", "n"),
    sa.Index("checkpoints_sha256_idx", "sha256"),
    sa.CheckConstraint("n > 0 AND size >= 0 AND ran_ms >= 0", name="numbers"),
)

artefacts = sa.Table(
    "artefacts",
    metadata,
    _uuid("attempt_id", sa.ForeignKey("attempts.id")),
    _uuid("job_id", sa.ForeignKey("jobs.id")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, sa.ForeignKey("blobs.sha256"), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    _moment("created_at", required=True),
    sa.PrimaryKeyConstraint("attempt_id", "name"),
    sa.Index("artefacts_job_idx", "job_id"),
    sa.Index("artefacts_sha256_idx", "sha256"),
)

attempt_blobs = sa.Table(
    "attempt_blobs",
    metadata,
    _uuid("attempt_id", sa.ForeignKey("attempts.id")),
    sa.Column("sha256", sa.Text, sa.ForeignKey("blobs.sha256", ondelete="CASCADE"), nullable=False),
    sa.PrimaryKeyConstraint("attempt_id", "sha256"),
    sa.Index("attempt_blobs_sha256_idx", "sha256"),
)
"""Which bytes an attempt has itself sent: a frame may refer to no others, however well their hash is known."""

job_inputs = sa.Table(
    "job_inputs",
    metadata,
    _uuid("job_id", sa.ForeignKey("jobs.id")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, sa.ForeignKey("blobs.sha256"), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("job_id", "name"),
    sa.Index("job_inputs_sha256_idx", "sha256"),
)

log_chunks = sa.Table(
    "log_chunks",
    metadata,
    sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
    _uuid("attempt_id", sa.ForeignKey("attempts.id")),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    _moment("node_at", required=True),
    _moment("created_at", required=True),
    sa.PrimaryKeyConstraint("attempt_id", "stream", "offset"),
    sa.Index("log_chunks_position_idx", "attempt_id", "position"),
    sa.CheckConstraint("stream IN ('out', 'err', 'agent')", name="stream"),
)
declare_sql(__file__, "jobs.sql", order=70)
