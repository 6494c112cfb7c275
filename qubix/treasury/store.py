"""The tables' rules of chain money: recorded chain rows, and the acts of the treasury's role. The chain itself comes later."""

from __future__ import annotations

import dataclasses
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.metadata import declare_sql, metadata

chain_rows = sa.Table(
    "chain_rows",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True, comment="also the subject of the transfer that goes with it"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("asset", sa.ForeignKey("assets.id"), nullable=False),
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

_DEPOSIT: Final = sa.text("""
SELECT deposit(:tx_ids, :indexes, :assets, :amounts, :owners, :addresses, :ticks, :proofs)
""").bindparams(
    sa.bindparam("tx_ids", type_=pg.ARRAY(sa.Text)),
    sa.bindparam("indexes", type_=pg.ARRAY(sa.Integer)),
    sa.bindparam("assets", type_=pg.ARRAY(sa.SmallInteger)),
    sa.bindparam("amounts", type_=pg.ARRAY(sa.BigInteger)),
    sa.bindparam("owners", type_=pg.ARRAY(pg.UUID(as_uuid=True))),
    sa.bindparam("addresses", type_=pg.ARRAY(sa.Text)),
    sa.bindparam("ticks", type_=pg.ARRAY(sa.BigInteger)),
    sa.bindparam("proofs", type_=pg.ARRAY(sa.Text)),
)


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
        self._connection = connection

    async def _act(self, sql: str, **values: object) -> Code:
        return Code(int(await self._connection.scalar(sa.text(sql), values)))

    async def deposit(self, deposits: list[Deposit]) -> list[Code]:
        """Record and credit up to a batch of deposits; one code per item, in their order."""
        codes: list[int] = await self._connection.scalar(
            _DEPOSIT,
            {
                "tx_ids": [d.tx_id for d in deposits],
                "indexes": [d.index for d in deposits],
                "assets": [d.asset.value for d in deposits],
                "amounts": [d.amount for d in deposits],
                "owners": [d.owner for d in deposits],
                "addresses": [d.address for d in deposits],
                "ticks": [d.tick for d in deposits],
                "proofs": [d.proof for d in deposits],
            },
        )
        return [Code(code) for code in codes]

    async def withdraw(self, hold: UUID, user: UUID, asset: Asset, amount: Qu, address: str) -> Code:
        """Hold `amount` of the user's wallet for a payout to `address`."""
        return await self._act(
            "SELECT withdraw(:hold, :user, cast(:asset AS smallint), :amount, :address)",
            hold=hold,
            user=user,
            asset=asset.value,
            amount=amount,
            address=address,
        )

    async def captured(self, hold: UUID, tx_id: str, tick: int, proof: str) -> Code:
        """The chain paid the hold, whole."""
        return await self._act("SELECT withdrawn(:hold, true, :tx_id, :tick, :proof)", hold=hold, tx_id=tx_id, tick=tick, proof=proof)

    async def voided(self, hold: UUID, proof: str) -> Code:
        """It is proved that the chain will never pay the hold."""
        return await self._act("SELECT withdrawn(:hold, false, NULL, NULL, :proof)", hold=hold, proof=proof)

    async def cost(self, tx_id: str, asset: Asset, amount: Qu, address: str, tick: int, proof: str) -> Code:
        """A network or contract fee, paid by the house."""
        return await self._act(
            "SELECT cost(:tx_id, cast(:asset AS smallint), :amount, :address, :tick, :proof)",
            tx_id=tx_id,
            asset=asset.value,
            amount=amount,
            address=address,
            tick=tick,
            proof=proof,
        )
