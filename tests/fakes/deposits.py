"""Payments to deposit addresses as the treasury writes them down, step by step, without a chain."""

from __future__ import annotations

import dataclasses
import secrets
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.jobs.payment import memo_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def identity() -> str:
    """60 letters that nobody has."""
    return "".join(secrets.choice(LETTERS) for _ in range(60))


async def addresses(owner: AsyncConnection, count: int = 3) -> None:
    """Deposit addresses that are nobody's yet, as the signer makes them."""
    for _ in range(count):
        await owner.execute(sa.text("INSERT INTO chain_addresses (identity, purpose) VALUES (:id, 'user')"), {"id": identity()})


async def chain(owner: AsyncConnection, *, processed: int = 1000, head: int = 1003, tick_s: float = 1.0) -> None:
    """The chain as the treasury sees it."""
    await owner.execute(
        sa.text("""INSERT INTO chain_state (cursor, peeked, head, processed, tick_s, advanced_at)
                   VALUES (:cursor, :processed, :head, :processed, :tick_s, clock_timestamp())
                   ON CONFLICT (the_only) DO UPDATE SET cursor = excluded.cursor, peeked = excluded.peeked, head = excluded.head,
                       processed = excluded.processed, tick_s = excluded.tick_s, advanced_at = excluded.advanced_at"""),
        {"cursor": processed - 3, "processed": processed, "head": head, "tick_s": tick_s},
    )


@dataclasses.dataclass
class Deposit:
    """One payment."""

    owner: AsyncConnection
    address: str
    amount: int
    tx_id: str
    tick: int

    async def confirmed(self, confirmations: int, state: str = "SEEN") -> None:
        """So much of it is proved."""
        await self.owner.execute(
            sa.text("UPDATE incoming SET confirmations = :n, state = :state, changed_at = clock_timestamp() WHERE tx_id = :tx"),
            {"n": confirmations, "state": state, "tx": self.tx_id},
        )

    async def credited(self) -> None:
        """It is proved, and in the wallet."""
        codes = await self.owner.scalar(
            sa.text("""SELECT deposit(ARRAY[:tx], ARRAY[0], ARRAY[1::smallint], ARRAY[cast(:amount AS bigint)], ARRAY[:address],
                                      ARRAY[cast(:tick AS bigint)], ARRAY['event log'], ARRAY['PAYER'])"""),
            {"tx": self.tx_id, "amount": self.amount, "address": self.address, "tick": self.tick},
        )
        assert codes == [0]
        await self.confirmed(3, "CREDITED")

    async def gone(self) -> None:
        """It did not move any money after all."""
        await self.owner.execute(sa.text("UPDATE incoming SET state = 'GONE' WHERE tx_id = :tx"), {"tx": self.tx_id})


async def seen(owner: AsyncConnection, address: str, amount: int, *, job: UUID | None = None, tick: int = 1001) -> Deposit:
    """A payment that the archive shows for the first time. Args: job, named by its memo."""
    made = Deposit(owner, address, amount, identity().lower(), tick)
    await owner.execute(
        sa.text("""INSERT INTO incoming (tx_id, place, address, amount, tick, payer, sender, memo, state, raw)
                   VALUES (:tx, 0, :address, :amount, :tick, 'PAYER', 'PAYER', :memo, 'SEEN', '{}')"""),
        {"tx": made.tx_id, "address": address, "amount": amount, "tick": tick, "memo": memo_of(job).encode() if job else b""},
    )
    return made
