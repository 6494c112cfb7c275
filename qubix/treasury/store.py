"""The tables' rules of chain money: recorded chain rows, and the acts of the treasury's role. The chain itself comes later."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.postgres.metadata import declare_sql, metadata

chain_rows = sa.Table(
    "chain_rows",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True, comment="also the subject of the transfer that goes with it"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("asset", sa.SmallInteger, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False, comment="what it did to the money that we hold on the chain"),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("tick", sa.BigInteger, nullable=False),
    sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False, comment="when the archive showed it, n ticks past its own"),
    sa.Column("second_proof", sa.Text, nullable=False, comment="what agreed with the archive"),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.CheckConstraint("kind IN ('deposit','withdrawal','cost')", name="kind"),
    sa.CheckConstraint("CASE kind WHEN 'deposit' THEN amount > 0 ELSE amount < 0 END", name="amount"),
    sa.CheckConstraint("length(tx_id) BETWEEN 1 AND 200 AND index >= 0 AND tick >= 0 AND length(second_proof) > 0", name="proved"),
    sa.Index("chain_rows_address_tick_idx", "address", "tick"),
)
declare_sql(__file__, "acts.sql", order=45)


@dataclasses.dataclass(frozen=True, slots=True)
class Deposit:
    """One payment that the archive shows and a second proof confirms.

    Args: owner, whose wallet it enters (None: suspense); index, its place within the transaction; proof, what agreed.
    """

    tx_id: str
    index: int
    asset: Asset
    amount: Qu
    owner: UUID | None
    address: str
    tick: int
    proof: str


class TreasuryStore:
    """Chain money over one connection; every method is one statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._caller = Caller(connection)

    async def _act(self, sql: str, *arguments: object) -> Code:
        return Code(await self._caller.value(sql, *arguments))

    async def deposit(self, deposits: Sequence[Deposit]) -> list[Code]:
        """Record and credit up to a batch of deposits; one code per item, in their order."""
        codes: list[int] = await self._caller.value(
            "SELECT deposit($1, $2, $3, $4, $5, $6, $7, $8)",
            [d.tx_id for d in deposits],
            [d.index for d in deposits],
            [d.asset.value for d in deposits],
            [d.amount for d in deposits],
            [d.owner for d in deposits],
            [d.address for d in deposits],
            [d.tick for d in deposits],
            [d.proof for d in deposits],
        )
        return [Code(code) for code in codes]

    async def withdraw(self, hold: UUID, user: UUID, asset: Asset, amount: Qu, address: str) -> Code:
        """Hold `amount` of the user's wallet for a payout to `address`."""
        return await self._act("SELECT withdraw($1, $2, $3, $4, $5)", hold, user, asset.value, amount, address)

    async def captured(self, hold: UUID, tx_id: str, tick: int, proof: str) -> Code:
        """The chain paid the hold, whole."""
        return await self._act("SELECT withdrawn($1, true, $2, $3, $4)", hold, tx_id, tick, proof)

    async def voided(self, hold: UUID, proof: str) -> Code:
        """It is proved that the chain will never pay the hold."""
        return await self._act("SELECT withdrawn($1, false, NULL, NULL, $2)", hold, proof)

    async def cost(self, tx_id: str, asset: Asset, amount: Qu, address: str, tick: int, proof: str) -> Code:
        """A network or contract fee, paid by the house."""
        return await self._act("SELECT cost($1, $2, $3, $4, $5, $6)", tx_id, asset.value, amount, address, tick, proof)
