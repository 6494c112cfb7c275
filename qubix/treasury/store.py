"""The acts of chain money, and what a user may read of it. Its tables: tables.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.postgres.metadata import declare_sql
from qubix.treasury import tables as _tables  # noqa: F401  (declares them)

declare_sql(__file__, "walls.sql", order=44)
declare_sql(__file__, "acts.sql", order=45)
declare_sql(__file__, "payments.sql", order=46)


@dataclasses.dataclass(frozen=True, slots=True)
class Deposit:
    """One payment that the archive shows and a second proof confirms.

    Whose wallet it enters follows from the address. Args: index, its place within the transaction; proof, what agreed; payer, whose it was.
    """

    tx_id: str
    index: int
    asset: Asset
    amount: Qu
    address: str
    tick: int
    proof: str
    payer: str


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
            [d.address for d in deposits],
            [d.tick for d in deposits],
            [d.proof for d in deposits],
            [d.payer for d in deposits],
        )
        return [Code(code) for code in codes]

    async def withdraw(self, hold: UUID, user: UUID, asset: Asset, amount: Qu, address: str) -> Code:
        """Hold `amount` of the user's wallet for a payout to `address`."""
        return await self._act("SELECT withdraw($1, $2, $3, $4, $5)", hold, user, asset.value, amount, address)

    async def give_address(self, user: UUID) -> str | None:
        """The user's deposit address; None while the signer has made none that is free."""
        found: str | None = await self._caller.value("SELECT give_address($1)", user)
        return found

    async def cancel_withdrawal(self, hold: UUID, user: UUID) -> Code:
        """Give a withdrawal's money back to the wallet while nothing is signed for it."""
        return await self._act("SELECT cancel_withdrawal($1, $2)", hold, user)

    async def captured(self, hold: UUID, tx_id: str, tick: int, proof: str) -> Code:
        """The chain paid the hold, whole."""
        return await self._act("SELECT withdrawn($1, true, $2, $3, $4)", hold, tx_id, tick, proof)

    async def voided(self, hold: UUID, proof: str) -> Code:
        """It is proved that the chain will never pay the hold."""
        return await self._act("SELECT withdrawn($1, false, NULL, NULL, $2)", hold, proof)

    async def cost(self, tx_id: str, asset: Asset, amount: Qu, address: str, tick: int, proof: str) -> Code:
        """A network or contract fee, paid by the house."""
        return await self._act("SELECT cost($1, $2, $3, $4, $5, $6)", tx_id, asset.value, amount, address, tick, proof)
