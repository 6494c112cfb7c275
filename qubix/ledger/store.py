"""Tables and SQL of the ledger: accounts, transfers, holds, and the acts that any user's wallet knows."""

from __future__ import annotations

import datetime as dt
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Balance, Code, Entry, EntryStatus, EntryType, Problem
from qubix.postgres.call import Caller
from qubix.postgres.metadata import declare_sql, metadata

_NOW: Final = sa.text("clock_timestamp()")


def _amount(name: str, *, nullable: bool = False, default: str | None = "0") -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=default)


assets = sa.Table(
    "assets",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("code", sa.Text, nullable=False, unique=True),
    sa.Column("decimals", sa.SmallInteger, nullable=False),
)
ledger_network = sa.Table(
    "ledger_network",
    metadata,
    sa.Column("the_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("born_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.CheckConstraint("the_only", name="the_only"),
    sa.CheckConstraint("network IN ('none','devnet','mainnet')", name="network"),
)
accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
    sa.Column("asset", sa.ForeignKey("assets.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner_id", sa.ForeignKey("users.id"), comment="whose money it is, or becomes: payer of an escrow, payee of an earning"),
    _amount("posted"),
    _amount("held"),
    _amount("seq"),
    sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("id", "asset"),
    sa.CheckConstraint("kind IN ('chain','wallet','escrow','earning','fee','house','suspense')", name="kind"),
    sa.CheckConstraint("(kind IN ('wallet','escrow','earning')) = (owner_id IS NOT NULL)", name="owned"),
    sa.CheckConstraint("held >= 0 AND (held = 0 OR kind = 'wallet')", name="held"),
    sa.CheckConstraint(
        "CASE kind WHEN 'chain' THEN posted BETWEEN -9223372036854775807 AND 0 ELSE posted >= held END", name="no_overdraft"
    ),
    sa.CheckConstraint("NOT closed OR (kind IN ('escrow','earning') AND posted = 0 AND held = 0)", name="closed_is_empty"),
    sa.CheckConstraint("seq >= 0", name="seq"),
    sa.Index("accounts_wallet_key", "owner_id", "asset", unique=True, postgresql_where=sa.text("kind = 'wallet'")),
    sa.Index("accounts_platform_key", "kind", "asset", unique=True, postgresql_where=sa.text("owner_id IS NULL")),
    sa.Index("accounts_owner_idx", "owner_id", "kind"),
    postgresql_with={"fillfactor": 50},
)
transfers = sa.Table(
    "transfers",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("act", sa.Text, nullable=False),
    sa.Column("subject_id", pg.UUID(as_uuid=True), nullable=False),
    sa.Column("debit_id", sa.BigInteger, nullable=False),
    sa.Column("credit_id", sa.BigInteger, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    _amount("amount", default=None),
    _amount("debit_seq", default=None),
    _amount("credit_seq", default=None),
    _amount("debit_after", default=None),
    _amount("credit_after", default=None),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.ForeignKeyConstraint(["debit_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.ForeignKeyConstraint(["credit_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.UniqueConstraint("debit_id", "debit_seq"),
    sa.UniqueConstraint("credit_id", "credit_seq"),
    sa.CheckConstraint("amount > 0", name="amount"),
    sa.CheckConstraint("debit_id <> credit_id", name="two_sides"),
    sa.CheckConstraint(
        "act IN ('fund','pay','rest','fee','net','back','deposit','faucet','withdrawal','cost')",
        name="act",
    ),
)
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    _amount("amount", default=None),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="OPEN"),
    sa.Column("evidence", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.ForeignKeyConstraint(["account_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.CheckConstraint("amount > 0", name="amount"),
    sa.CheckConstraint("state IN ('OPEN','CAPTURED','VOIDED')", name="state"),
    sa.CheckConstraint("(state = 'OPEN') = (ended_at IS NULL) AND (state = 'OPEN') = (evidence IS NULL)", name="ended"),
    sa.Index("holds_account_idx", "account_id", "created_at"),
    sa.Index("holds_open_idx", "created_at", postgresql_where=sa.text("state = 'OPEN'")),
)
declare_sql(__file__, "walls.sql", order=10)
declare_sql(__file__, "acts.sql", order=11)
declare_sql(__file__, "audit.sql", order=12)

# Purses carry their owner, so what is held in escrow and what is still pending are sums over the owner's accounts.
_BALANCES: Final = sa.text("""
SELECT w.asset, w.posted - w.held AS available, w.held,
       coalesce(p.escrow, 0)::bigint AS held_in_escrow, coalesce(p.earning, 0)::bigint AS pending_earnings,
       (SELECT coalesce(sum(t.amount), 0) FROM transfers t WHERE t.credit_id = w.id AND t.act = 'net')::bigint AS earned,
       coalesce(p.spent, 0)::bigint AS spent
FROM accounts w
LEFT JOIN LATERAL (
    SELECT sum(a.posted) FILTER (WHERE a.kind = 'escrow') AS escrow, sum(a.posted) FILTER (WHERE a.kind = 'earning') AS earning,
           sum((SELECT sum(t.amount) FROM transfers t WHERE t.debit_id = a.id AND t.act = 'pay')
             - coalesce((SELECT sum(b.amount) FROM transfers t JOIN transfers b ON b.debit_id = t.credit_id AND b.act = 'back'
                         WHERE t.debit_id = a.id AND t.act = 'pay'), 0)) FILTER (WHERE a.kind = 'escrow') AS spent
    FROM accounts a WHERE a.owner_id = w.owner_id AND a.asset = w.asset AND a.kind IN ('escrow','earning')) p ON true
WHERE w.owner_id = :user AND w.kind = 'wallet' ORDER BY w.asset
""")
# One row per thing that a user would call a transaction. A pay is told to the payee only while it is pending (then net and fee
# tell it); a hold tells a withdrawal from its birth, so the transfer of its capture is left out. Whether a withdrawal is unknown,
# its payment says.
_HISTORY: Final = sa.text("""
WITH mine AS (SELECT id, kind, closed FROM accounts WHERE owner_id = :user AND (cast(:asset AS smallint) IS NULL OR asset = :asset)),
rows AS (
    SELECT t.id, CASE t.act WHEN 'fund' THEN 'escrow_lock' WHEN 'pay' THEN 'release' ELSE t.act END AS type, 'completed' AS status,
           t.asset, t.amount, CASE m.kind WHEN 'wallet' THEN -t.amount ELSE 0 END AS change, t.subject_id,
           CASE m.kind WHEN 'wallet' THEN t.debit_after END AS after, t.created_at
    FROM mine m JOIN transfers t ON t.debit_id = m.id WHERE t.act IN ('fund','pay','fee')
    UNION ALL
    SELECT t.id, CASE WHEN t.act IN ('rest','back') THEN 'refund' WHEN t.act IN ('net','pay') THEN 'earning' ELSE 'deposit' END,
           CASE t.act WHEN 'pay' THEN 'pending' ELSE 'completed' END, t.asset, t.amount,
           CASE t.act WHEN 'pay' THEN 0 ELSE t.amount END, t.subject_id, CASE t.act WHEN 'pay' THEN NULL ELSE t.credit_after END, t.created_at
    FROM mine m JOIN transfers t ON t.credit_id = m.id
    WHERE t.act IN ('rest','back','net','deposit','faucet')
       OR (t.act = 'pay' AND NOT m.closed AND NOT EXISTS (SELECT 1 FROM mine o WHERE o.id = t.debit_id))
    UNION ALL
    SELECT h.id, 'withdrawal', CASE h.state WHEN 'CAPTURED' THEN 'completed' WHEN 'VOIDED' THEN 'failed' ELSE
               CASE WHEN EXISTS (SELECT 1 FROM payment_holds l JOIN payments p ON p.id = l.payment_id WHERE l.hold_id = h.id AND l.live AND p.state = 'UNKNOWN')
                    THEN 'unknown' ELSE 'pending' END END,
           h.asset, h.amount, CASE h.state WHEN 'VOIDED' THEN 0 ELSE -h.amount END, h.id, NULL, h.created_at
    FROM mine m JOIN holds h ON h.account_id = m.id),
page AS (SELECT * FROM rows
WHERE (cast(:types AS text[]) IS NULL OR type = ANY(cast(:types AS text[])))
  AND (cast(:statuses AS text[]) IS NULL OR status = ANY(cast(:statuses AS text[]))) AND (cast(:only AS uuid) IS NULL OR id = :only)
  AND (cast(:since AS timestamptz) IS NULL OR created_at >= :since) AND (cast(:until AS timestamptz) IS NULL OR created_at < :until)
  AND (cast(:cursor_at AS timestamptz) IS NULL OR (created_at, id) < (:cursor_at, cast(:cursor_id AS uuid)))
ORDER BY created_at DESC, id DESC LIMIT :most)
SELECT p.*, coalesce(g.escrow_id, e.id) AS escrow_id
FROM page p LEFT JOIN earnings g ON g.id = p.subject_id LEFT JOIN escrows e ON e.id = p.subject_id
ORDER BY p.created_at DESC, p.id DESC
""").bindparams(
    sa.bindparam("types", type_=pg.ARRAY(sa.Text)),
    sa.bindparam("statuses", type_=pg.ARRAY(sa.Text)),
    sa.bindparam("only", type_=pg.UUID(as_uuid=True)),
    sa.bindparam("since", type_=sa.DateTime(timezone=True)),
    sa.bindparam("until", type_=sa.DateTime(timezone=True)),
    sa.bindparam("cursor_at", type_=sa.DateTime(timezone=True)),
    sa.bindparam("cursor_id", type_=pg.UUID(as_uuid=True)),
    sa.bindparam("asset", type_=sa.SmallInteger),
)
# What moved per UTC day and type, counted as the history does; what is still pending is not in it.
_DAYS: Final = sa.text("""
SELECT (x.created_at AT TIME ZONE 'UTC')::date AS day, x.type, sum(x.amount)::bigint AS amount, count(*) AS n
FROM (
    SELECT CASE t.act WHEN 'fund' THEN 'escrow_lock' WHEN 'pay' THEN 'release' ELSE t.act END AS type, t.amount, t.created_at
    FROM accounts m JOIN transfers t ON t.debit_id = m.id
    WHERE m.owner_id = :user AND m.asset = :asset AND t.act IN ('fund','pay','fee','withdrawal')
    UNION ALL
    SELECT CASE WHEN t.act IN ('rest','back') THEN 'refund' WHEN t.act = 'net' THEN 'earning' ELSE 'deposit' END, t.amount, t.created_at
    FROM accounts m JOIN transfers t ON t.credit_id = m.id
    WHERE m.owner_id = :user AND m.asset = :asset AND t.act IN ('rest','back','net','deposit','faucet')) x
WHERE x.created_at >= :since GROUP BY 1, 2
""").bindparams(sa.bindparam("since", type_=sa.DateTime(timezone=True)))


class LedgerStore:
    """The ledger over one connection; every method is one statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._caller = Caller(connection)

    async def _act(self, sql: str, *arguments: object) -> Code:
        return Code(await self._caller.value(sql, *arguments))

    async def found(self, network: str) -> Code:
        """Write the network at the database's birth; only the owner's role may."""
        return await self._act("SELECT found_ledger($1)", network)

    async def network(self) -> str | None:
        """The network, None before `found`."""
        found: str | None = await self._connection.scalar(sa.text("SELECT network FROM ledger_network"))
        return found

    async def open_wallets(self, user: UUID) -> Code:
        """One wallet per asset."""
        return await self._act("SELECT open_wallets($1)", user)

    async def faucet(self, user: UUID, asset: Asset, amount: Qu, n: str) -> Code:
        """Test money, once per `n`."""
        return await self._act("SELECT faucet($1, $2, $3, $4)", user, asset.value, amount, n)

    async def balances(self, user: UUID) -> tuple[Balance, ...]:
        """The user's wallets, by asset; empty for an unknown user."""
        rows = await self._connection.execute(_BALANCES, {"user": user})
        return tuple(
            Balance(
                asset=Asset(r.asset),
                available=Qu(r.available),
                held=Qu(r.held),
                held_in_escrow=Qu(r.held_in_escrow),
                pending_earnings=Qu(r.pending_earnings),
                earned=Qu(r.earned),
                spent=Qu(r.spent),
            )
            for r in rows
        )

    async def available(self, user: UUID, asset: Asset) -> Qu | None:
        """What the wallet can spend now; None where there is no wallet."""
        found: int | None = await self._connection.scalar(
            sa.text("SELECT posted - held FROM accounts WHERE owner_id = :user AND asset = :asset AND kind = 'wallet'"),
            {"user": user, "asset": asset.value},
        )
        return None if found is None else Qu(found)

    async def history(
        self,
        user: UUID,
        *,
        asset: Asset | None,
        types: list[str] | None,
        statuses: list[str] | None = None,
        only: UUID | None = None,
        since: dt.datetime | None,
        until: dt.datetime | None,
        cursor: tuple[dt.datetime, UUID] | None,
        most: int,
    ) -> list[Entry]:
        """Up to `most` entries, newest first, behind the cursor."""
        rows = await self._connection.execute(
            _HISTORY,
            {
                "user": user,
                "asset": None if asset is None else asset.value,
                "types": types,
                "statuses": statuses,
                "only": only,
                "since": since,
                "until": until,
                "cursor_at": None if cursor is None else cursor[0],
                "cursor_id": None if cursor is None else cursor[1],
                "most": most,
            },
        )
        return [
            Entry(
                id=r.id,
                type=EntryType(r.type),
                status=EntryStatus(r.status),
                asset=Asset(r.asset),
                amount=Qu(r.amount),
                change=r.change,
                subject_id=r.subject_id,
                escrow_id=r.escrow_id,
                balance_after=None if r.after is None else Qu(r.after),
                created_at=r.created_at,
            )
            for r in rows
        ]

    async def days(self, user: UUID, asset: Asset, since: dt.datetime) -> list[tuple[dt.date, EntryType, Qu, int]]:
        """What moved: day, type, sum and how many, for days and types that have any."""
        rows = await self._connection.execute(_DAYS, {"user": user, "asset": asset.value, "since": since})
        return [(r.day, EntryType(r.type), Qu(r.amount), r.n) for r in rows]

    async def audit(self) -> list[Problem]:
        """What breaks a rule of the ledger, empty when nothing does."""
        rows = await self._connection.execute(sa.text("SELECT rule, n, example FROM audit() WHERE n > 0 ORDER BY rule"))
        return [Problem(rule=r.rule, count=r.n, example=r.example or "") for r in rows]
