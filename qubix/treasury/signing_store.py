"""What the signer reads and writes, as its own database role."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.treasury.seeds import SealedSeed
from qubix.treasury.sending import Counters, EpochWatch
from qubix.treasury.signing import Candidate, Ceilings, SignedPayment

# Those past a ceiling by themselves are left out here, so that however many wait for a person, the others are found. Each account's oldest
# goes before any account's second, and an account that was paid longer ago before one that just was: whoever asks for many small
# withdrawals waits behind them alone.
_CANDIDATES: Final = sa.text("""
SELECT h.id, h.account_id, h.amount, h.address, h.approved, h.user_day::bigint, h.wallet_day::bigint
FROM payable_holds h CROSS JOIN signer_limits m
WHERE NOT h.halted AND h.id <> ALL(cast(:without AS uuid[]))
  AND (h.approved OR h.amount <= m.payment_max AND h.user_day + h.amount <= m.user_day_max AND h.wallet_day + h.amount <= m.wallet_day_max)
ORDER BY row_number() OVER (PARTITION BY h.account_id ORDER BY h.created_at, h.id), h.user_signed_at NULLS FIRST, h.created_at, h.id LIMIT :most
""")

# However many addresses get a unit again and again, so few sweeps are on their way that they do not keep payouts from being sent.
_SWEEPABLE: Final = sa.text("""
SELECT r.address, k.sealed, r.recorded::bigint,
       (SELECT coalesce(max(p.tick), 0) FROM payments p WHERE p.source = r.address) AS settled_tick
FROM (SELECT address, sum(amount) AS recorded FROM chain_rows WHERE asset = 1 GROUP BY address HAVING sum(amount) >= :least) r
JOIN chain_addresses a ON a.identity = r.address AND a.purpose <> 'hot'
JOIN signer_keys k ON k.identity = r.address
WHERE r.address <> ALL(cast(:without AS text[]))
  AND NOT EXISTS (SELECT 1 FROM payout_halts s WHERE s.subject IN ('*', r.address))
  AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.source = r.address AND p.state IN ('SIGNED','UNKNOWN'))
ORDER BY r.recorded DESC, r.address
LIMIT greatest(0, :most - (SELECT count(*) FROM payments p WHERE p.kind = 'sweep' AND p.state = 'SIGNED'))
""")


@dataclass(frozen=True, slots=True)
class Paying:
    """The paying (hot) address. Args: settled_tick, of its last payment, 0 if it never paid; busy, whether one is unresolved (S6)."""

    seed: SealedSeed
    settled_tick: int
    busy: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A deposit address to be swept. Args: recorded, what the recorded chain rows say it has; settled_tick, of its last payment."""

    seed: SealedSeed
    recorded: int
    settled_tick: int


class SigningStore:
    """The signer's rows over one connection; every method is one statement, but for `add_address`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._caller = Caller(connection)

    async def network(self) -> str | None:
        """Where the ledger was born: none, devnet or mainnet; None before that."""
        found: str | None = await self._connection.scalar(sa.text("SELECT network FROM ledger_network"))
        return found

    async def any_seed(self) -> SealedSeed | None:
        """The first seed that was ever sealed, to try the key file on."""
        sql = (
            "SELECT k.identity, k.sealed FROM signer_keys k JOIN chain_addresses a USING (identity) ORDER BY a.made_at, a.identity LIMIT 1"
        )
        row = (await self._connection.execute(sa.text(sql))).one_or_none()
        return None if row is None else SealedSeed(row.identity, row.sealed)

    async def lacking(self) -> tuple[list[str], int]:
        """Which of hot and house there is none of yet, and how many free addresses for users there are."""
        sql = """SELECT array(SELECT p FROM unnest(ARRAY['hot','house']) p WHERE NOT EXISTS (SELECT 1 FROM chain_addresses WHERE purpose = p)) AS purposes,
                        (SELECT count(*) FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL AND retired_at IS NULL) AS free"""
        row = (await self._connection.execute(sa.text(sql))).one()
        return list(row.purposes), int(row.free)

    async def add_address(self, seed: SealedSeed, purpose: str) -> None:
        """An address and its sealed seed; both, or neither."""
        values = {"identity": seed.identity, "purpose": purpose, "sealed": seed.sealed}
        await self._connection.execute(sa.text("INSERT INTO chain_addresses (identity, purpose) VALUES (:identity, :purpose)"), values)
        await self._connection.execute(sa.text("INSERT INTO signer_keys (identity, sealed) VALUES (:identity, :sealed)"), values)

    async def hot(self) -> Paying | None:
        """The paying address; None before there is one."""
        sql = """SELECT a.identity, k.sealed, (SELECT coalesce(max(p.tick), 0) FROM payments p WHERE p.source = a.identity) AS settled_tick,
                        EXISTS (SELECT 1 FROM payments p WHERE p.source = a.identity AND p.state IN ('SIGNED','UNKNOWN')) AS busy
                 FROM chain_addresses a JOIN signer_keys k USING (identity) WHERE a.purpose = 'hot'"""
        row = (await self._connection.execute(sa.text(sql))).one_or_none()
        return None if row is None else Paying(SealedSeed(row.identity, row.sealed), row.settled_tick, row.busy)

    async def candidates(self, *, without: Collection[UUID], most: int) -> list[Candidate]:
        """Holds that might be paid now, in the order in which they are to go. Args: without, those left to a person."""
        rows = await self._connection.execute(_CANDIDATES, {"without": list(without), "most": most})
        return [
            Candidate(row.id, row.account_id, row.amount, row.address, row.approved, False, row.user_day, row.wallet_day) for row in rows
        ]

    async def ceilings(self) -> Ceilings:
        """What is signed without a person."""
        row = (await self._connection.execute(sa.text("SELECT payment_max, user_day_max, wallet_day_max FROM signer_limits"))).one()
        return Ceilings(row.payment_max, row.user_day_max, row.wallet_day_max)

    async def set_ceilings(self, ceilings: Ceilings) -> None:
        """Replace them."""
        sql = "UPDATE signer_limits SET payment_max = :payment, user_day_max = :user_day, wallet_day_max = :wallet_day"
        values = {"payment": ceilings.payment_max, "user_day": ceilings.user_day_max, "wallet_day": ceilings.wallet_day_max}
        await self._connection.execute(sa.text(sql), values)

    async def house(self) -> int:
        """What the platform has for fees."""
        sql = "SELECT posted - held FROM accounts WHERE kind = 'house' AND owner_id IS NULL AND asset = 1"
        return int(await self._connection.scalar(sa.text(sql)) or 0)

    async def epoch(self) -> EpochWatch | None:
        """The epoch as the treasury last saw it; None before it saw any."""
        row = (await self._connection.execute(sa.text("SELECT epoch, epoch_advanced_at FROM chain_state"))).one_or_none()
        return None if row is None else EpochWatch(row.epoch, row.epoch_advanced_at)

    async def sweepable(self, *, least: int, without: Collection[str], most: int) -> list[Source]:
        """Deposit addresses that have at least so much, no unresolved payment and no halt; the richest first.

        Args: most, sweeps on their way, those that are signed already included.
        """
        rows = await self._connection.execute(_SWEEPABLE, {"least": least, "without": list(without), "most": most})
        return [Source(SealedSeed(row.address, row.sealed), row.recorded, row.settled_tick) for row in rows]

    async def sign_payout(self, payment_id: UUID, signed: SignedPayment, before: Counters) -> Code:
        """Store a signed payout; the database judges holds, ceilings and halts once more."""
        transaction = signed.transaction
        code = await self._caller.value(
            "SELECT sign_payout($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            payment_id,
            signed.source,
            signed.destination,
            transaction.amount,
            signed.fee,
            transaction.tick,
            transaction.input_type,
            transaction.payload,
            signed.encoded,
            signed.tx_id,
            before.transfers,
            before.amount,
            list(signed.holds),
        )
        return Code(code)

    async def sign_sweep(self, payment_id: UUID, signed: SignedPayment, before: Counters) -> Code:
        """Store a signed sweep."""
        code = await self._caller.value(
            "SELECT sign_sweep($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            payment_id,
            signed.source,
            signed.destination,
            signed.transaction.amount,
            signed.transaction.tick,
            signed.encoded,
            signed.tx_id,
            before.transfers,
            before.amount,
        )
        return Code(code)
