"""What a user reads of chain money; every method is one statement."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Qu
from qubix.treasury import tables as _tables  # noqa: F401  (declares them)
from qubix.treasury.model import (
    UNWATCHED,
    ChainFacts,
    ChainState,
    Incoming,
    Outlook,
    confirmations_of,
    outlook,
    said_of_withdrawal,
    withdrawal_state,
)
from qubix.treasury.sending import CONFIRMATIONS

_IDS: Final = sa.bindparam("ids", type_=pg.ARRAY(pg.UUID(as_uuid=True)))

_DEPOSITS: Final = sa.text(
    "SELECT id, tx_id, tick, address, counterparty, second_proof FROM chain_rows WHERE kind = 'deposit' AND id = ANY(:ids)"
).bindparams(_IDS)

# The latest payment of each hold: the one that may still execute, or the last one that is dead.
_WITHDRAWALS: Final = sa.text("""
SELECT h.id, h.state AS hold, h.address, p.state AS payment, p.tx_id, p.tick, p.source, p.reason, coalesce(p.live, false) AS live,
       coalesce((p.raw->>'moneyFlew')::boolean, false) AS archived,
       EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = h.id AND NOT l.live) AS died,
       coalesce((SELECT processed FROM chain_state), 0) AS processed,
       EXISTS (SELECT 1 FROM payout_halts s LEFT JOIN chain_addresses d ON d.identity = s.subject JOIN accounts w ON w.id = h.account_id
               WHERE s.subject = '*' OR d.user_id = w.owner_id) AS halted,
       coalesce(v.waits_for_approval, false) AS waits_for_approval
FROM holds h LEFT JOIN payable_holds v ON v.id = h.id LEFT JOIN LATERAL (
    SELECT p.*, l.live FROM payment_holds l JOIN payments p ON p.id = l.payment_id WHERE l.hold_id = h.id
    ORDER BY l.live DESC, p.signed_at DESC LIMIT 1) p ON true
WHERE h.id = ANY(:ids)
""").bindparams(_IDS)

_INCOMING: Final = sa.text("""
SELECT i.tx_id, i.place, i.address, i.amount, i.tick, i.payer, i.state, i.confirmations, i.reason, i.seen_at
FROM incoming i JOIN chain_addresses a ON a.identity = i.address
WHERE a.user_id = :user AND i.state = ANY(:states)
  AND (cast(:since AS timestamptz) IS NULL OR i.seen_at >= :since) AND (cast(:until AS timestamptz) IS NULL OR i.seen_at < :until)
ORDER BY i.seen_at DESC, i.tick DESC, i.tx_id, i.place LIMIT :most
""").bindparams(
    sa.bindparam("states", type_=pg.ARRAY(sa.Text)),
    sa.bindparam("since", type_=sa.DateTime(timezone=True)),
    sa.bindparam("until", type_=sa.DateTime(timezone=True)),
)


class ChainReader:
    """Over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def facts(self, subjects: Collection[UUID]) -> dict[UUID, ChainFacts]:
        """The chain's side of those of the subjects that have one, deposits and withdrawals."""
        if not subjects:
            return {}
        given = {"ids": list(subjects)}
        found = [_deposit(row) for row in await self._connection.execute(_DEPOSITS, given)]
        found += [_withdrawal(row) for row in await self._connection.execute(_WITHDRAWALS, given)]
        return {facts.subject_id: facts for facts in found}

    async def incoming(
        self, user: UUID, states: Sequence[ChainState], *, since: dt.datetime | None, until: dt.datetime | None, most: int
    ) -> list[Incoming]:
        """Payments to the user's address that are not in the wallet, newest first."""
        given = {"user": user, "states": [state.name for state in states], "since": since, "until": until, "most": most}
        return [
            Incoming(
                r.tx_id,
                r.place,
                r.address,
                Qu(r.amount),
                r.tick,
                r.payer,
                ChainState[r.state],
                min(r.confirmations, CONFIRMATIONS),
                r.reason,
                r.seen_at,
            )
            for r in await self._connection.execute(_INCOMING, given)
        ]

    async def on_their_way(self, user: UUID) -> Qu:
        """The sum of what comes in and is in no wallet yet; what a person must look at is not in it."""
        total = await self._connection.scalar(
            sa.text(
                "SELECT coalesce(sum(i.amount), 0)::bigint FROM incoming i JOIN chain_addresses a ON a.identity = i.address"
                " WHERE a.user_id = :user AND i.state IN ('SEEN','WAITING')"
            ),
            {"user": user},
        )
        return Qu(int(total or 0))

    async def owns(self, user: UUID, address: str) -> bool:
        """Whether it is the user's deposit address."""
        asked = sa.text("SELECT EXISTS (SELECT 1 FROM chain_addresses WHERE identity = :address AND user_id = :user)")
        return bool(await self._connection.scalar(asked, {"address": address, "user": user}))

    async def outlook(self, now: dt.datetime) -> Outlook:
        """How the chain stands by the treasury's last look."""
        row = (await self._connection.execute(sa.text("SELECT head, processed, tick_s, advanced_at FROM chain_state"))).one_or_none()
        return UNWATCHED if row is None else outlook(row.head, row.processed, row.tick_s, row.advanced_at, now)


def _deposit(row: Any) -> ChainFacts:
    return ChainFacts(
        row.id, ChainState.DONE, row.address, row.counterparty, row.tx_id, row.tick, CONFIRMATIONS, f"confirmed: {row.second_proof}"
    )


def _withdrawal(row: Any) -> ChainFacts:
    state = withdrawal_state(row.hold, row.payment, live=row.live, halted=row.halted, waits_for_approval=row.waits_for_approval)
    said = said_of_withdrawal(state, row.tick, row.reason or "", died=row.died)
    confirmations = confirmations_of(state, row.tick, row.processed, archived=row.archived)
    in_flight = row.live and state is not ChainState.DONE
    return ChainFacts(row.id, state, row.address, row.source, row.tx_id, row.tick, confirmations, said, in_flight)
