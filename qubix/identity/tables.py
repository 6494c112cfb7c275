"""Tables of accounts: users, API keys, sessions, idempotency keys, wallet challenges, and the wallets that log in to an account."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from qubix.postgres.metadata import metadata

_NOW: Final = sa.text("now()")


def _at(name: str, *, nullable: bool = False, default: bool = False) -> sa.Column[dt.datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=_NOW if default else None)


users = sa.Table(
    "users",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("email", sa.Text, unique=True, comment="NULL: made by a wallet's login, which has set none yet"),
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    sa.Column("password_hash", sa.Text),
    sa.Column("roles", pg.ARRAY(sa.Text), nullable=False, server_default="{}"),
    _at("created_at", default=True),
    _at("disabled_at", nullable=True),
    sa.CheckConstraint("email = lower(email) AND length(email) BETWEEN 3 AND 320", name="email"),
    sa.CheckConstraint("roles <@ ARRAY['operator','arbiter']", name="roles"),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("key_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", pg.ARRAY(sa.Text), nullable=False),
    _at("created_at", default=True),
    _at("last_used_at", nullable=True),
    sa.CheckConstraint("length(key_hash) = 32", name="key_hash"),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    _at("created_at", default=True),
    _at("expires_at"),
    sa.CheckConstraint("kind IN ('browser','bearer')", name="kind"),
    sa.CheckConstraint("length(token_hash) = 32", name="token_hash"),
    sa.Index("sessions_expires_at_idx", "expires_at"),
)
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("response", pg.JSONB),
    _at("created_at", default=True),
    sa.CheckConstraint("length(key) BETWEEN 1 AND 200", name="key"),
    sa.CheckConstraint("length(request_hash) = 32", name="request_hash"),
    sa.CheckConstraint("(status IS NULL) = (response IS NULL)", name="answered"),
    sa.Index("idempotency_keys_created_at_idx", "created_at"),
)
wallet_challenges = sa.Table(
    "wallet_challenges",
    metadata,
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False, comment="what is signed; nothing that a wallet says it has signed is looked at"),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), index=True, comment="the account that the identity is added to"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("used_at", sa.DateTime(timezone=True)),
    sa.CheckConstraint("nonce ~ '^[0-9a-f]{32}$'", name="nonce"),
    sa.CheckConstraint("identity ~ '^[A-Z]{60}$'", name="identity"),
    sa.CheckConstraint("length(text) > 32 AND position(identity IN text) > 0 AND position(nonce IN text) > 0", name="text"),
    sa.CheckConstraint("purpose IN ('login','link') AND (purpose = 'link') = (user_id IS NOT NULL)", name="purpose"),
    sa.CheckConstraint("expires_at > created_at AND expires_at <= created_at + interval '5 minutes'", name="short"),
    sa.Index("wallet_challenges_expires_at_idx", "expires_at"),
)
wallet_identities = sa.Table(
    "wallet_identities",
    metadata,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("linked_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.CheckConstraint("identity ~ '^[A-Z]{60}$'", name="identity"),
    sa.CheckConstraint("scheme IN ('walletconnect','extension','manual')", name="scheme"),
)
