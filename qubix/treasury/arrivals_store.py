"""Reads of payments to deposit addresses, over one transaction's connection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Qu
from qubix.treasury.arrivals import ARRIVALS_MAX, Arrival, ArrivalState

_COLUMNS: Final = "i.tx_id, i.place, i.address, i.amount, i.tick, i.payer, i.memo, i.state, i.confirmations, i.seen_at, i.changed_at"
_SINCE: Final = sa.text(f"""
SELECT i.* FROM unnest(:addresses, :moments) AS a (address, since)
CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM incoming i WHERE i.address = a.address AND i.seen_at >= a.since
                    ORDER BY i.amount DESC, i.tx_id, i.place LIMIT :most) i
ORDER BY i.seen_at, i.tx_id, i.place
""").bindparams(  # noqa: S608  (a constant)
    sa.bindparam("addresses", type_=pg.ARRAY(sa.Text)), sa.bindparam("moments", type_=pg.ARRAY(sa.DateTime(timezone=True)))
)
_OF: Final = sa.text(f"""
SELECT {_COLUMNS} FROM incoming i WHERE i.address = :address AND (i.tx_id = ANY(:tx_ids) OR i.memo = :memo)
ORDER BY i.seen_at, i.tx_id, i.place LIMIT :most
""").bindparams(sa.bindparam("tx_ids", type_=pg.ARRAY(sa.Text)), sa.bindparam("memo", type_=sa.LargeBinary))  # noqa: S608


class ArrivalsStore:
    """What the treasury wrote down of payments to our users' addresses."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def since(self, since: Mapping[str, dt.datetime]) -> list[Arrival]:
        """The payments to each address that were first seen at its moment or later, in that order."""
        values = {"addresses": list(since), "moments": list(since.values()), "most": ARRIVALS_MAX}
        return [_arrival(row) for row in await self._connection.execute(_SINCE, values)] if since else []

    async def of(self, address: str, tx_ids: Sequence[str], memo: bytes) -> list[Arrival]:
        """The payments to the address by these transactions, or with this memo, in the order in which they were seen."""
        values = {"address": address, "tx_ids": list(tx_ids), "memo": memo, "most": ARRIVALS_MAX}
        return [_arrival(row) for row in await self._connection.execute(_OF, values)]


def _arrival(row: Any) -> Arrival:
    return Arrival(
        tx_id=row.tx_id,
        place=row.place,
        address=row.address,
        amount=Qu(row.amount),
        tick=row.tick,
        payer=row.payer,
        memo=bytes(row.memo),
        state=ArrivalState(row.state),
        confirmations=row.confirmations,
        seen_at=row.seen_at,
        changed_at=row.changed_at,
    )
