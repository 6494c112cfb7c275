"""Tables of the market: offers, which carry what a search reads, and quotes."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from qubix.postgres.metadata import declare_sql, metadata

_UUID: Final = pg.UUID(as_uuid=True)


def _at(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[dt.datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=None if default is None else sa.text(default))


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


offers = sa.Table(
    "offers",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("node_id", sa.ForeignKey("nodes.id"), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False, server_default="1"),
    sa.Column("price_per_hour", sa.BigInteger, nullable=False),
    sa.Column("tflops", sa.Double, nullable=False, server_default="0"),
    sa.Column("provider_id", _UUID),
    _text("provider"),
    _text("region"),
    _text("cpu_model"),
    sa.Column("cpu_cores", sa.Integer, nullable=False, server_default="0"),
    sa.Column("ram_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("vram_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("gpus", sa.Integer, nullable=False, server_default="0"),
    sa.Column("gpus_free", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reliability", sa.Double),
    sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("verified", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("detected_by", sa.Text, nullable=False, server_default="declared"),
    sa.Column("listed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("status", sa.Text, nullable=False, server_default="registering"),
    _at("fresh_until", default="'-infinity'"),
    _at("recount_at", nullable=True),
    sa.Column("stale_told", sa.Boolean, nullable=False, server_default=sa.true()),
    _text("search"),
    _text("card"),
    _text("told"),
    _at("created_at", default="now()"),
    sa.Column("model_key", sa.Text, sa.Computed("upper(replace(model, '-', '_'))", persisted=True), nullable=False),
    sa.Column(
        "cost_per_tflop",
        sa.Double,
        sa.Computed("CASE WHEN tflops > 0 THEN price_per_hour / tflops ELSE 'Infinity'::double precision END", persisted=True),
        nullable=False,
    ),
    sa.UniqueConstraint("node_id", "model"),
    sa.CheckConstraint("price_per_hour BETWEEN 1 AND 1000000000000000", name="price_per_hour"),
    sa.CheckConstraint("gpus_free BETWEEN 0 AND gpus", name="gpus_free"),
    sa.CheckConstraint("tflops >= 0", name="tflops"),
    # One per order that a page may have, so that its first row is found and not sorted for, and one for
    # placement. None holds what a heartbeat writes.
    # Memory and model stand behind the order: what does not have them is passed over without a look at its row.
    sa.Index("offers_price_idx", "price_per_hour", "id", "vram_bytes", "model_key", postgresql_where=sa.text("listed")),
    sa.Index("offers_price_desc_idx", sa.text("(- price_per_hour)"), "id", postgresql_where=sa.text("listed")),
    sa.Index("offers_performance_idx", sa.text("(- tflops)"), "id", postgresql_where=sa.text("listed")),
    sa.Index("offers_availability_idx", sa.text("(- gpus_free)"), "id", postgresql_where=sa.text("listed")),
    sa.Index("offers_cost_benefit_idx", "cost_per_tflop", "id", postgresql_where=sa.text("listed")),
    sa.Index("offers_model_idx", "model_key", "price_per_hour", "id", postgresql_where=sa.text("listed")),
    sa.Index("offers_any_price_idx", "price_per_hour", "id", postgresql_where=sa.text("status <> 'left'")),
    sa.Index(
        "offers_free_idx", "price_per_hour", "gpus_free", "model_key", "vram_bytes", postgresql_where=sa.text("listed AND gpus_free > 0")
    ),
    sa.Index("offers_recount_idx", "recount_at", postgresql_where=sa.text("recount_at IS NOT NULL")),
    postgresql_with={"fillfactor": "50"},
)
reputations_due = sa.Table(
    "reputations_due",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("provider_id", _UUID, nullable=False, comment="an attempt of theirs has ended; their offers do not show it yet"),
)
offers_walk = sa.Table(
    "offers_walk",
    metadata,
    sa.Column("the_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("after", _UUID, nullable=False, comment="how far the search for stale offers has come"),
    sa.CheckConstraint("the_only", name="the_only"),
)
quotes = sa.Table(
    "quotes",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False),
    sa.Column("offer_id", sa.ForeignKey("offers.id"), nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("device_ids", pg.ARRAY(sa.BigInteger), nullable=False),
    sa.Column("price_per_hour", sa.BigInteger, nullable=False),
    sa.Column("rate_max", sa.BigInteger, nullable=False),
    sa.Column("ceiling", sa.BigInteger, nullable=False),
    sa.Column("duration_max_s", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="open"),
    _at("created_at", default="now()"),
    _at("expires_at"),
    sa.CheckConstraint("state IN ('open','used','expired')", name="state"),
    sa.CheckConstraint("gpus > 0 AND cardinality(device_ids) = gpus", name="gpus"),
    sa.CheckConstraint("rate_max > 0 AND ceiling > 0 AND duration_max_s > 0", name="terms"),
    sa.Index("quotes_one_open_per_user_key", "user_id", unique=True, postgresql_where=sa.text("state = 'open'")),
    sa.Index("quotes_expires_at_idx", "expires_at", postgresql_where=sa.text("state = 'open'")),
    sa.Index("quotes_offer_id_idx", "offer_id"),
)
declare_sql(__file__, "market.sql", order=50)
