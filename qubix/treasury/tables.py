"""Tables of chain money: recorded chain rows, our addresses, what came in, what was signed, and why payouts stop."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from qubix.postgres.metadata import metadata

_NOW = sa.text("clock_timestamp()")


def _at(name: str, *, now: bool = False, **options: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not now, server_default=_NOW if now else None, **options)  # type: ignore[arg-type]


chain_rows = sa.Table(
    "chain_rows",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True, comment="also the subject of the transfer that goes with it"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("index", sa.Integer, nullable=False, comment="the place in a send-many; of a sweep 0 for what left, 1 for what arrived"),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False, comment="what it did to the money that we hold at this address"),
    sa.Column("address", sa.Text, nullable=False, comment="ours"),
    sa.Column("counterparty", sa.Text, comment="whose it was before, or is now"),
    sa.Column("tick", sa.BigInteger, nullable=False),
    sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False, comment="when the archive showed it, n ticks past its own"),
    sa.Column("second_proof", sa.Text, nullable=False, comment="what agreed with the archive"),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.CheckConstraint("kind IN ('deposit','withdrawal','cost','sweep')", name="kind"),
    sa.CheckConstraint("CASE kind WHEN 'deposit' THEN amount > 0 WHEN 'sweep' THEN amount <> 0 ELSE amount < 0 END", name="amount"),
    sa.CheckConstraint("length(tx_id) BETWEEN 1 AND 200 AND index >= 0 AND tick >= 0 AND length(second_proof) > 0", name="proved"),
    sa.Index("chain_rows_address_tick_idx", "address", "tick"),
)

chain_addresses = sa.Table(
    "chain_addresses",
    metadata,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("purpose", sa.Text, nullable=False, comment="hot pays out; house takes the operator's float; user: one user's deposits"),
    sa.Column("user_id", sa.ForeignKey("users.id"), unique=True, comment="whose deposits these are; NULL: not given to anybody yet"),
    _at("made_at", now=True),
    _at("given_at"),
    _at("retired_at", comment="free when a backup was restored: somebody may have been given it since, so nobody else ever is"),
    sa.CheckConstraint("purpose IN ('user','hot','house')", name="purpose"),
    sa.CheckConstraint("identity ~ '^[A-Z]{60}$'", name="identity"),
    sa.CheckConstraint("purpose = 'user' OR user_id IS NULL", name="owned"),
    sa.CheckConstraint("(user_id IS NULL) = (given_at IS NULL)", name="given"),
    sa.Index("chain_addresses_purpose_key", "purpose", unique=True, postgresql_where=sa.text("purpose <> 'user'")),
    sa.Index("chain_addresses_free_idx", "made_at", postgresql_where=sa.text("purpose = 'user' AND user_id IS NULL")),
)

signer_keys = sa.Table(
    "signer_keys",
    metadata,
    sa.Column("identity", sa.ForeignKey("chain_addresses.identity"), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False, comment="the seed, encrypted under the signer's key file"),
)

signer_limits = sa.Table(
    "signer_limits",
    metadata,
    sa.Column("the_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("payment_max", sa.BigInteger, nullable=False),
    sa.Column("user_day_max", sa.BigInteger, nullable=False),
    sa.Column("wallet_day_max", sa.BigInteger, nullable=False),
    sa.CheckConstraint("the_only", name="the_only"),
    sa.CheckConstraint("payment_max >= 0 AND user_day_max >= 0 AND wallet_day_max >= 0", name="amounts"),
)

payout_approvals = sa.Table(
    "payout_approvals",
    metadata,
    sa.Column("hold_id", sa.ForeignKey("holds.id"), primary_key=True),
    sa.Column("approved_by", sa.Text, nullable=False),
    _at("approved_at", now=True),
    sa.CheckConstraint("length(approved_by) BETWEEN 1 AND 200", name="approved_by"),
)

payout_halts = sa.Table(
    "payout_halts",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True, comment="* for all payouts, or the deposit address of the one user whom it stops"),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("figures", pg.JSONB, nullable=False),
    sa.Column("needs_person", sa.Boolean, nullable=False, server_default=sa.false(), comment="it does not end by itself"),
    _at("since", now=True),
)

payments = sa.Table(
    "payments",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.ForeignKey("chain_addresses.identity"), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False, comment="what leaves the source, the contract's fee included"),
    sa.Column("fee", sa.BigInteger, nullable=False),
    sa.Column("tick", sa.BigInteger, nullable=False),
    sa.Column("input_type", sa.Integer, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column(
        "encoded", sa.LargeBinary, nullable=False, comment="the signed bytes, stored before anything is sent; only these are ever sent"
    ),
    sa.Column("tx_id", sa.Text, nullable=False, unique=True),
    sa.Column("before_transfers", sa.BigInteger, nullable=False, comment="the source's outgoing counters when it was signed"),
    sa.Column("before_amount", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="SIGNED"),
    sa.Column("reason", sa.Text, nullable=False, server_default="", comment="the latest verdict in words"),
    sa.Column("broadcasts", sa.Integer, nullable=False, server_default="0"),
    _at("broadcast_at"),
    sa.Column("raw", pg.JSONB, comment="the archive's own words"),
    _at("signed_at", now=True),
    _at("ended_at"),
    sa.CheckConstraint("kind IN ('payout','sweep')", name="kind"),
    sa.CheckConstraint("state IN ('SIGNED','UNKNOWN','PAID','DEAD')", name="state"),
    sa.CheckConstraint(
        "amount > 0 AND fee >= 0 AND fee < amount AND tick > 0 AND before_transfers >= 0 AND before_amount >= 0", name="amount"
    ),
    sa.CheckConstraint("(state IN ('PAID','DEAD')) = (ended_at IS NOT NULL)", name="ended"),
    sa.Index("payments_source_key", "source", unique=True, postgresql_where=sa.text("state IN ('SIGNED','UNKNOWN')")),
    sa.Index("payments_tick_idx", "tick"),
    sa.Index("payments_source_tick_idx", "source", "tick"),
    sa.Index("payments_signed_at_idx", "signed_at"),
)

payment_holds = sa.Table(
    "payment_holds",
    metadata,
    sa.Column("payment_id", sa.ForeignKey("payments.id"), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, comment="0 in a direct payment; the place in a send-many"),
    sa.Column("hold_id", sa.ForeignKey("holds.id"), nullable=False),
    sa.Column("live", sa.Boolean, nullable=False, server_default=sa.true(), comment="false once the payment is proved dead"),
    sa.CheckConstraint("place BETWEEN 0 AND 24", name="place"),
    sa.Index("payment_holds_hold_key", "hold_id", unique=True, postgresql_where=sa.text("live")),
    sa.Index("payment_holds_hold_idx", "hold_id"),
)

strangers = sa.Table(
    "strangers",
    metadata,
    sa.Column("tx_id", sa.Text, primary_key=True),
    sa.Column("source", sa.ForeignKey("chain_addresses.identity"), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("tick", sa.BigInteger, nullable=False),
    sa.Column("input_type", sa.Integer, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("encoded", sa.LargeBinary, nullable=False, comment="with the signature that the archive shows"),
    sa.Column("money_flew", sa.Boolean, comment="by the archive, which proves nothing: see lost_verdicts"),
    _at("found_at", now=True),
    comment="transactions from our addresses that no payment here is for: a thief's, or what a restored backup does not know",
)

lost_verdicts = sa.Table(
    "lost_verdicts",
    metadata,
    sa.Column("tx_id", sa.ForeignKey("strangers.tx_id"), primary_key=True),
    sa.Column("paid", sa.Boolean, comment="NULL while nothing proves it either way"),
    sa.Column("raised", sa.Boolean, nullable=False, comment="whether it raised its address's outgoing counters"),
    sa.Column("reason", sa.Text, nullable=False, comment="the proof, or what lacks of one"),
    _at("judged_at", now=True),
    comment="after a restore: whether what a stranger sent has paid, by the rules of the payments that were signed here",
)

chain_state = sa.Table(
    "chain_state",
    metadata,
    sa.Column("the_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("cursor", sa.BigInteger, nullable=False, comment="the last tick whose deposits are all in the ledger"),
    sa.Column("peeked", sa.BigInteger, nullable=False, comment="the last tick looked at ahead of the cursor, to show what is coming"),
    sa.Column("head", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("processed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("tick_s", sa.Float, nullable=False, server_default="1"),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    _at("epoch_advanced_at", comment="when the archive was first seen to advance in this epoch; NULL: not known"),
    _at("advanced_at", comment="when the archive was last seen to advance"),
    sa.CheckConstraint("the_only", name="the_only"),
    sa.CheckConstraint("cursor >= 0 AND peeked >= cursor", name="cursor"),
)

incoming = sa.Table(
    "incoming",
    metadata,
    sa.Column("tx_id", sa.Text, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("address", sa.ForeignKey("chain_addresses.identity"), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("tick", sa.BigInteger, nullable=False),
    sa.Column("payer", sa.Text, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("memo", sa.LargeBinary, nullable=False, server_default=""),
    sa.Column(
        "state", sa.Text, nullable=False, comment="SEEN too early to count; WAITING for the second proof; a person looks at DOUBTFUL"
    ),
    sa.Column("confirmations", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("raw", pg.JSONB, nullable=False, comment="the archive's own words: the network forgets them at the epoch's end"),
    _at("seen_at", now=True),
    _at("changed_at", now=True),
    sa.CheckConstraint("state IN ('SEEN','WAITING','CREDITED','DOUBTFUL','GONE')", name="state"),
    sa.CheckConstraint("amount > 0 AND tick > 0 AND place BETWEEN 0 AND 24 AND confirmations BETWEEN 0 AND 100", name="amounts"),
    sa.Index("incoming_address_idx", "address", "tick"),
    sa.Index("incoming_open_idx", "tick", postgresql_where=sa.text("state IN ('SEEN','WAITING','DOUBTFUL')")),
)
