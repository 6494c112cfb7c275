"""Tables and SQL of escrows, earnings, disputes and rulings; whatever moves money is an act in acts.sql."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.escrow.model import Earning, EarningsSummary, EarningState, Escrow, EscrowState, Line, Outcome, Proposal, average_hourly_rate
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.postgres.metadata import declare_sql, metadata

_NOW: Final = sa.text("clock_timestamp()")
_UUID: Final = pg.UUID(as_uuid=True)


def _at(name: str, *, default: bool = False) -> sa.Column[dt.datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not default, server_default=_NOW if default else None)


def _amount(name: str, *, default: str | None = None, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=default)


escrows = sa.Table(
    "escrows",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    sa.Column("payer_id", sa.BigInteger, nullable=False),
    sa.Column("account_id", sa.BigInteger, nullable=False, unique=True),
    sa.Column("state", sa.Text, nullable=False, server_default="PENDING"),
    _amount("funded", default="0"),
    _amount("paid", default="0"),
    _amount("refunded", default="0"),
    sa.Column("digest", sa.LargeBinary, comment="of the settlement asked for, so that a repeat is known from another"),
    sa.Column("proposal", pg.JSONB, comment="the settlement that waits for an arbiter"),
    _at("created_at", default=True),
    _at("disputed_at"),
    _at("settled_at"),
    sa.ForeignKeyConstraint(["payer_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.ForeignKeyConstraint(["account_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.CheckConstraint("state IN ('PENDING','LOCKED','DISPUTED','RELEASED','REFUNDED','SPLIT')", name="state"),
    sa.CheckConstraint("funded >= 0 AND paid >= 0 AND refunded >= 0", name="amounts"),
    sa.CheckConstraint(
        "CASE WHEN state IN ('RELEASED','REFUNDED','SPLIT') THEN paid + refunded = funded ELSE paid = 0 AND refunded = 0 END",
        name="whole",
    ),
    sa.CheckConstraint(
        "CASE state WHEN 'PENDING' THEN funded = 0 WHEN 'REFUNDED' THEN paid = 0 WHEN 'SPLIT' THEN paid > 0 ELSE funded > 0 END",
        name="shape",
    ),
    sa.CheckConstraint("(state IN ('RELEASED','REFUNDED','SPLIT')) = (settled_at IS NOT NULL)", name="settled"),
    # On disputed_at, not on state: an index whose predicate names state would make every fund write all indexes anew.
    sa.Index("escrows_disputed_idx", "disputed_at", postgresql_where=sa.text("disputed_at IS NOT NULL")),
    postgresql_with={"fillfactor": 70},
)
earnings = sa.Table(
    "earnings",
    metadata,
    sa.Column("id", _UUID, primary_key=True),
    sa.Column("escrow_id", sa.ForeignKey("escrows.id"), nullable=False),
    sa.Column("line", sa.Text, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    sa.Column("payee_id", sa.BigInteger, nullable=False),
    sa.Column("account_id", sa.BigInteger, nullable=False, unique=True),
    _amount("gross"),
    sa.Column("fee_bps", sa.Integer, nullable=False),
    _amount("fee"),
    _at("matures_at", default=True),
    sa.Column("state", sa.Text, nullable=False, server_default="PENDING"),
    _amount("to_payee", nullable=True),
    _at("created_at", default=True),
    _at("frozen_at"),
    _at("ended_at"),
    sa.UniqueConstraint("escrow_id", "line"),
    sa.ForeignKeyConstraint(["payee_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.ForeignKeyConstraint(["account_id", "asset"], ["accounts.id", "accounts.asset"]),
    sa.CheckConstraint("state IN ('PENDING','FROZEN','PAID','REVERSED','SPLIT')", name="state"),
    sa.CheckConstraint("gross > 0 AND fee_bps BETWEEN 0 AND 10000 AND fee = div(gross::numeric * fee_bps, 10000)", name="fee"),
    sa.CheckConstraint(
        "CASE state WHEN 'PAID' THEN to_payee = gross WHEN 'REVERSED' THEN to_payee = 0"
        " WHEN 'SPLIT' THEN to_payee > 0 AND to_payee < gross ELSE to_payee IS NULL END"
        " AND (state IN ('PENDING','FROZEN') OR to_payee IS NOT NULL)",
        name="shape",
    ),
    sa.CheckConstraint("(state IN ('PENDING','FROZEN')) = (ended_at IS NULL)", name="ended"),
    sa.Index("earnings_due_idx", "matures_at", postgresql_where=sa.text("state = 'PENDING'")),
    sa.Index("earnings_frozen_idx", "frozen_at", postgresql_where=sa.text("state = 'FROZEN'")),
    sa.Index("earnings_payee_idx", "payee_id", "created_at"),
)
escrow_lines = sa.Table(
    "escrow_lines",
    metadata,
    sa.Column("escrow_id", sa.ForeignKey("escrows.id"), primary_key=True),
    sa.Column("line", sa.Text, primary_key=True),
    sa.Column("payee_user_id", sa.ForeignKey("users.id"), nullable=False, index=True),
    _amount("metered_gross"),
    _amount("gross"),
    _amount("metered_ms"),
    _at("created_at", default=True),
    sa.CheckConstraint("gross BETWEEN 0 AND metered_gross AND metered_ms >= 0", name="amounts"),
)
disputes = sa.Table(
    "disputes",
    metadata,
    sa.Column("escrow_id", sa.ForeignKey("escrows.id"), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    _at("created_at", default=True),
)
rulings = sa.Table(
    "rulings",
    metadata,
    sa.Column("escrow_id", sa.ForeignKey("escrows.id"), primary_key=True),
    sa.Column("arbiter_id", sa.ForeignKey("users.id"), nullable=False),
    _amount("to_payee", nullable=True),
    sa.Column("reason", sa.Text, nullable=False),
    _at("created_at", default=True),
    sa.CheckConstraint("to_payee >= 0", name="to_payee"),
)
declare_sql(__file__, "walls.sql", order=60)
declare_sql(__file__, "acts.sql", order=61)
declare_sql(__file__, "audit.sql", order=62)

_ESCROW: Final = """
SELECT e.id, e.asset, p.owner_id AS payer, e.state, e.funded, e.paid, e.refunded, e.created_at, e.disputed_at, e.settled_at
FROM escrows e JOIN accounts p ON p.id = e.payer_id
"""
_EARNING: Final = """
SELECT g.id, g.escrow_id, g.line, p.owner_id AS payee, g.asset, g.gross, g.fee_bps, g.fee, g.state, g.to_payee, g.matures_at, g.created_at
FROM earnings g JOIN accounts p ON p.id = g.payee_id
"""
# A disputed escrow is due once its job has asked for settlement and the arbiter has spoken, or has not for too long.
_RULED_DUE: Final = sa.text("""
SELECT e.id, e.proposal FROM escrows e LEFT JOIN rulings r ON r.escrow_id = e.id
WHERE e.disputed_at IS NOT NULL AND e.state = 'DISPUTED' AND e.proposal IS NOT NULL
  AND (r.escrow_id IS NOT NULL OR e.disputed_at + make_interval(secs => :decision_s) <= now())
  AND (cast(:only AS uuid) IS NULL OR e.id = :only)
ORDER BY e.disputed_at LIMIT :most
""")
_FROZEN_DUE: Final = sa.text("""
SELECT g.id FROM earnings g LEFT JOIN rulings r ON r.escrow_id = g.escrow_id
WHERE g.state = 'FROZEN' AND (r.escrow_id IS NOT NULL OR g.frozen_at + make_interval(secs => :decision_s) <= now())
  AND (cast(:only AS uuid) IS NULL OR g.id = :only)
ORDER BY g.frozen_at LIMIT :most
""")
# Net of the fee. Hours count every line that was metered, also the ones that earned nothing.
_EARNINGS: Final = sa.text("""
WITH mine AS (SELECT id, asset FROM accounts WHERE owner_id = :user AND kind = 'wallet'),
paid AS (
    SELECT g.asset, g.ended_at, g.to_payee - div(g.to_payee::numeric * g.fee_bps, 10000)::bigint AS net
    FROM earnings g JOIN mine m ON m.id = g.payee_id WHERE g.to_payee IS NOT NULL),
open AS (SELECT g.asset, g.gross - g.fee AS net FROM earnings g JOIN mine m ON m.id = g.payee_id WHERE g.state IN ('PENDING','FROZEN')),
worked AS (SELECT e.asset, count(DISTINCT l.escrow_id) AS jobs, sum(l.metered_ms) AS ms
           FROM escrow_lines l JOIN escrows e ON e.id = l.escrow_id WHERE l.payee_user_id = :user GROUP BY e.asset)
SELECT m.asset,
  (SELECT coalesce(sum(net), 0) FROM paid p WHERE p.asset = m.asset)::bigint AS total,
  (SELECT coalesce(sum(net), 0) FROM paid p WHERE p.asset = m.asset AND p.ended_at >= date_trunc('day', now(), 'UTC'))::bigint AS today,
  (SELECT coalesce(sum(net), 0) FROM paid p WHERE p.asset = m.asset AND p.ended_at >= date_trunc('week', now(), 'UTC'))::bigint AS week,
  (SELECT coalesce(sum(net), 0) FROM paid p WHERE p.asset = m.asset AND p.ended_at >= date_trunc('month', now(), 'UTC'))::bigint AS month,
  (SELECT coalesce(sum(net), 0) FROM open o WHERE o.asset = m.asset)::bigint AS pending,
  coalesce(w.jobs, 0)::bigint AS jobs, coalesce(w.ms, 0)::bigint AS metered_ms
FROM mine m LEFT JOIN worked w ON w.asset = m.asset ORDER BY m.asset
""")


class EscrowStore:
    """Escrows over one connection; every method is one statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._caller = Caller(connection)

    async def _act(self, sql: str, *arguments: object) -> Code:
        return Code(await self._caller.value(sql, *arguments))

    async def open(self, escrow: UUID, user: UUID, asset: Asset) -> Code:
        """Make a PENDING escrow and its account."""
        return await self._act("SELECT open_escrow($1, $2, $3)", escrow, user, asset.value)

    async def fund(self, escrow: UUID, n: int, amount: Qu) -> Code:
        """Step `n` of the funding: payer's wallet → escrow."""
        return await self._act("SELECT fund($1, $2, $3)", escrow, n, amount)

    async def cancel_pending(self, escrow: UUID) -> Code:
        """Close an escrow that was never funded."""
        return await self._act("SELECT cancel_pending_escrow($1)", escrow)

    async def settle(
        self, escrow: UUID, outcome: Outcome, lines: Sequence[Line], *, fee_bps: int, window_s: float, decision_s: float
    ) -> Code:
        """The job's end."""
        return await self._act(
            "SELECT settle($1, $2, $3, $4, $5, $6, $7, make_interval(secs => $8), make_interval(secs => $9))",
            escrow,
            outcome.value,
            [line.line for line in lines],
            [line.payee for line in lines],
            [line.gross for line in lines],
            [line.metered_ms for line in lines],
            fee_bps,
            float(window_s),
            float(decision_s),
        )

    async def mature(self, earnings: Sequence[UUID]) -> list[Code]:
        """Pay out earnings whose window is over; one code per id, in their order."""
        codes: list[int] = await self._caller.value("SELECT mature($1)", list(earnings)) if earnings else []
        return [Code(code) for code in codes]

    async def dispute(self, escrow: UUID, user: UUID, evidence: str) -> Code:
        """The payer's objection."""
        return await self._act("SELECT dispute($1, $2, $3)", escrow, user, evidence)

    async def rule(self, escrow: UUID, arbiter: UUID, to_payee: Qu | None, reason: str) -> Code:
        """The arbiter's row."""
        return await self._act("SELECT rule($1, $2, $3, $4)", escrow, arbiter, to_payee, reason)

    async def resolve(self, earning: UUID, decision_s: float) -> Code:
        """End a frozen earning."""
        return await self._act("SELECT resolve($1, make_interval(secs => $2))", earning, float(decision_s))

    async def read(self, escrow: UUID) -> Escrow | None:
        """One escrow, None where there is none."""
        row = (await self._connection.execute(sa.text(_ESCROW + "WHERE e.id = :id"), {"id": escrow})).one_or_none()
        return None if row is None else _escrow(row)

    async def read_earnings(self, escrow: UUID) -> tuple[Earning, ...]:
        """The escrow's earnings, by line."""
        rows = await self._connection.execute(sa.text(_EARNING + "WHERE g.escrow_id = :id ORDER BY g.line"), {"id": escrow})
        return tuple(_earning(row) for row in rows)

    async def earnings_by_id(self, earnings: Sequence[UUID]) -> tuple[Earning, ...]:
        """These earnings, in any order."""
        rows = await self._connection.execute(sa.text(_EARNING + "WHERE g.id = ANY(cast(:ids AS uuid[]))"), {"ids": list(earnings)})
        return tuple(_earning(row) for row in rows)

    async def due(self, most: int) -> list[UUID]:
        """Earnings whose window is over, the oldest first."""
        rows = await self._connection.execute(
            sa.text("SELECT id FROM earnings WHERE state = 'PENDING' AND matures_at <= now() ORDER BY matures_at LIMIT :most"),
            {"most": most},
        )
        return [row.id for row in rows]

    async def frozen_due(self, decision_s: float, most: int, *, only: UUID | None = None) -> list[UUID]:
        """Frozen earnings that can end now; whether `only` is one."""
        values = {"decision_s": float(decision_s), "most": most, "only": only}
        return [row.id for row in await self._connection.execute(_FROZEN_DUE, values)]

    async def proposals_due(self, decision_s: float, most: int, *, only: UUID | None = None) -> list[tuple[UUID, Proposal]]:
        """Disputed escrows that can settle now, with the settlement that waits; whether `only` is one."""
        rows = await self._connection.execute(_RULED_DUE, {"decision_s": float(decision_s), "most": most, "only": only})
        return [(row.id, _proposal(row.proposal)) for row in rows]

    async def summary(self, user: UUID) -> tuple[EarningsSummary, ...]:
        """What the user earned, per asset."""
        return tuple(
            EarningsSummary(
                asset=Asset(r.asset),
                total=Qu(r.total),
                today=Qu(r.today),
                week=Qu(r.week),
                month=Qu(r.month),
                pending=Qu(r.pending),
                jobs=r.jobs,
                metered_ms=r.metered_ms,
                average_per_hour=average_hourly_rate([(r.total + r.pending, r.metered_ms)]),
            )
            for r in await self._connection.execute(_EARNINGS, {"user": user})
        )


def _escrow(r: sa.Row[Any]) -> Escrow:
    return Escrow(
        r.id,
        Asset(r.asset),
        r.payer,
        EscrowState(r.state),
        Qu(r.funded),
        Qu(r.paid),
        Qu(r.refunded),
        r.created_at,
        r.disputed_at,
        r.settled_at,
    )


def _earning(r: sa.Row[Any]) -> Earning:
    to_payee = None if r.to_payee is None else Qu(r.to_payee)
    state = EarningState(r.state)
    return Earning(
        r.id, r.escrow_id, r.line, r.payee, Asset(r.asset), Qu(r.gross), r.fee_bps, Qu(r.fee), state, to_payee, r.matures_at, r.created_at
    )


def _proposal(stored: dict[str, Any]) -> Proposal:
    lines = tuple(Line(item["line"], UUID(item["payee"]), Qu(item["gross"]), item["metered_ms"]) for item in stored["lines"])
    return Proposal(Outcome(stored["outcome"]), stored["fee_bps"], lines)
