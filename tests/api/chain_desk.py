"""The chain's side of a platform under test: what signer and treasury would write, by the acts that they call."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.treasury.store import Deposit, TreasuryStore
from tests.integration.chains.devnet_process import Person as Purse

_NUMBERS = itertools.count(700)


def tx_id() -> str:
    """The id of a transaction that never was: it has the form of one."""
    return Purse(next(_NUMBERS)).identity.lower()


@dataclasses.dataclass
class ChainDesk:
    """Args: owner, for what the signer does and for looking; treasury, resources of that role."""

    owner: AsyncConnection
    treasury: Resources
    hot: Purse = dataclasses.field(default_factory=lambda: Purse(next(_NUMBERS)))

    async def _run(self, sql: str, **given: Any) -> Any:
        return await self.owner.execute(sa.text(sql), given)

    async def make_address(self, purpose: str = "user") -> Purse:
        """What the signer does beforehand."""
        purse = self.hot if purpose == "hot" else Purse(next(_NUMBERS))
        await self._run(
            "INSERT INTO chain_addresses (identity, purpose) VALUES (:identity, :purpose)", identity=purse.identity, purpose=purpose
        )
        return purse

    async def stand(self, *, head: int = 1000, processed: int = 997, tick_s: float = 2.0, age_s: float = 0) -> None:
        """How far the treasury has seen the chain."""
        at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
        await self._run(
            "INSERT INTO chain_state (cursor, peeked, head, processed, tick_s, advanced_at) VALUES (0, 0, :head, :processed, :tick_s, :at)"
            " ON CONFLICT (the_only) DO UPDATE SET head = :head, processed = :processed, tick_s = :tick_s, advanced_at = :at",
            head=head,
            processed=processed,
            tick_s=tick_s,
            at=at,
        )

    async def see(
        self, address: str, amount: int, *, tick: int = 996, state: str = "SEEN", confirmations: int = 0, tx: str | None = None
    ) -> str:
        """A payment that the archive shows and that does not count yet."""
        tx = tx or tx_id()
        await self._run(
            "INSERT INTO incoming (tx_id, place, address, amount, tick, payer, sender, state, confirmations, raw)"
            " VALUES (:tx, 0, :address, :amount, :tick, 'PAYER', 'PAYER', :state, :confirmations, '{}')"
            " ON CONFLICT (tx_id, place) DO UPDATE SET state = :state, confirmations = :confirmations",
            tx=tx,
            address=address,
            amount=amount,
            tick=tick,
            state=state,
            confirmations=confirmations,
        )
        return tx

    async def credit(self, address: str, amount: int, *, tick: int = 996, tx: str | None = None) -> str:
        """A payment enters the wallet."""
        tx = tx or tx_id()
        async with scope(self.treasury) as s:
            codes = await TreasuryStore(s.connection).deposit(
                [Deposit(tx, 0, Asset.QUBIC, Qu(amount), address, tick, "event log", "PAYER")]
            )
        assert codes == [Code.DONE]
        await self._run("UPDATE incoming SET state = 'CREDITED', confirmations = 3 WHERE tx_id = :tx", tx=tx)
        return tx

    async def sign(self, hold: str, amount: int, *, tick: int = 1020) -> tuple[UUID, str]:
        """The signer signs a payment of the hold."""
        payment, tx = uuid4(), tx_id()
        address = (await self._run("SELECT address FROM holds WHERE id = cast(:hold AS uuid)", hold=hold)).scalar()
        code = await self._run(
            "SELECT sign_payout(:id, :hot, :address, :amount, 0, :tick, 0, '', 'bytes', :tx, 0, 0, ARRAY[cast(:hold AS uuid)])",
            id=payment,
            hot=self.hot.identity,
            address=address,
            amount=amount,
            tick=tick,
            tx=tx,
            hold=hold,
        )
        assert code.scalar() == 0
        return payment, tx

    async def judge(self, act: str, *given: object) -> None:
        """One of the treasury's verdicts."""
        async with scope(self.treasury) as s:
            places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
            assert await Caller(s.connection).value(f"SELECT {act}({places})", *given) == 0
