"""The treasury process in a test's own hands, with users, their deposit addresses, and a signer that signs at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.clock import SystemClock
from qubix.treasurer import Treasurer
from qubix.treasury.deciding import Patience
from qubix.treasury.oversight import Oversight
from qubix.treasury.sending import Rules
from qubix.treasury.watch_store import ChainState, WatchStore
from qubix.treasury.watching import Pauses
from tests.conftest import Database
from tests.integration.chains.devnet_process import Devnet, Person
from tests.integration.ledger.people import person, posted, problems

PAYER: Final = Person(700)
"""Somebody with money; a module that uses the till has it in FUNDED."""
FINAL: Final = 9
"""Steps from a payment three ticks ahead until the archive, three ticks behind, is three ticks past it."""

_numbers = itertools.count(10_000)


class Till:
    """Treasurer, database and devnet of one test."""

    def __init__(
        self, database: Database, owner: AsyncConnection, devnet: Devnet, treasurer: Treasurer, signer: asyncpg.Connection
    ) -> None:
        self.database = database
        self.owner = owner
        self.devnet = devnet
        self.treasurer = treasurer
        self.signer = signer
        self.hot = Person(next(_numbers))
        self.house = Person(next(_numbers))

    # -- people and addresses --

    async def address(self, purpose: str = "user", user: UUID | None = None, who: Person | None = None) -> Person:
        """An address of ours, given to `user`."""
        who = who or Person(next(_numbers))
        given = "now()" if user else "NULL"
        await self.owner.execute(
            sa.text(f"INSERT INTO chain_addresses (identity, purpose, user_id, given_at) VALUES (:i, :p, :u, {given})"),
            {"i": who.identity, "p": purpose, "u": user},
        )
        return who

    async def user(self) -> tuple[UUID, Person]:
        """A user with wallets and a deposit address."""
        made = await person(self.owner)
        return made, await self.address(user=made)

    def pay(self, to: Person | bytes, amount: int, *, ahead: int = 3, payer: Person = PAYER, payload: bytes = b"") -> Transaction:
        """A payment on its way."""
        made = payer.pays(to if isinstance(to, bytes) else to.key, amount, self.devnet.tick + ahead, payload=payload)
        assert self.devnet.send(made).status_code == 200
        return made

    def pay_many(self, payments: Sequence[tuple[Person, int]], *, fee: int = 10, ahead: int = 3) -> Transaction:
        """A send-many on its way."""
        listed = [(to.key, amount) for to, amount in payments]
        made = qutil.send_many(PAYER.key, listed, tick=self.devnet.tick + ahead, fee=fee).signed_by(PAYER.subseed)
        assert self.devnet.send(made).status_code == 200
        return made

    # -- the treasury --

    async def advance(self, ticks: int = FINAL) -> None:
        """Some ticks, and then the treasury looks."""
        if ticks:
            self.devnet.step(ticks)
        await self.treasurer.watch()

    async def paid(self, to: Person, amount: int) -> Transaction:
        """A payment that is final, and seen by the treasury."""
        made = self.pay(to, amount)
        await self.advance()
        return made

    async def status(self) -> dict[str, Any]:
        """What operators see."""
        return await Oversight(self.owner).status()

    async def state(self) -> ChainState:
        """How far the treasury has come."""
        found = await WatchStore(self.owner).state()
        assert found is not None
        return found

    async def balances(self) -> None:
        """One whole round of R1 and R2."""
        await self.treasurer.reconciler.ask()
        await self.advance()
        for tick in await self.treasurer.reconciler.judge():
            await self.treasurer.watcher.read_again(tick)

    # -- what is in the database --

    async def value(self, sql: str, **values: Any) -> Any:
        return await self.owner.scalar(sa.text(sql), values)

    async def incoming(self, tx: Transaction) -> list[tuple[int, str, int]]:
        """Place, state and confirmations of a transaction's payments to us."""
        rows = await self.owner.execute(
            sa.text("SELECT place, state, confirmations FROM incoming WHERE tx_id = :id ORDER BY place"), {"id": tx.id}
        )
        return [(row.place, row.state, row.confirmations) for row in rows]

    async def told(self, user: UUID, tx: Transaction | None = None) -> list[tuple[str, int]]:
        """State and confirmations of the news that the user got about it, in their order."""
        rows = await self.owner.execute(
            sa.text("SELECT payload FROM events WHERE type = 'WALLET_UPDATE' AND :t = ANY(topics) ORDER BY id"), {"t": f"wallet:{user}"}
        )
        said = [row.payload for row in rows]
        return [(one["state"], one["confirmations"]) for one in said if tx is None or one["tx_id"] == tx.id]

    async def wallet(self, user: UUID) -> int:
        return await posted(self.owner, user)

    async def account(self, kind: str) -> int:
        return int(await self.value("SELECT posted FROM accounts WHERE kind = :k AND asset = 1", k=kind))

    async def payment(self, payment: UUID) -> tuple[str, str]:
        row = (await self.owner.execute(sa.text("SELECT state, reason FROM payments WHERE id = :id"), {"id": payment})).one()
        return row.state, row.reason

    async def halts(self) -> dict[str, tuple[str, dict[str, Any], bool]]:
        rows = await self.owner.execute(sa.text("SELECT subject, rule, figures, needs_person FROM payout_halts"))
        return {row.subject: (row.rule, row.figures, row.needs_person) for row in rows}

    async def sound(self) -> None:
        """The audit finds nothing."""
        assert await problems(self.owner) == []

    # -- the signer --

    async def withdraw(self, user: UUID, amount: int, to: Person) -> UUID:
        """A hold, as the web layer makes it."""
        hold = uuid4()
        code = await self.value("SELECT withdraw(:h, :u, 1::smallint, :a, :t)", h=hold, u=user, a=amount, t=to.identity)
        assert code == 0
        return hold

    async def sign(self, *holds: UUID, fee: int | None = None, ahead: int = 12) -> tuple[UUID, Transaction]:
        """Sign and store a payout of these holds from the hot address: a direct one, or with a fee a send-many."""
        rows = [await self._hold(hold) for hold in holds]
        tick = self.devnet.tick + ahead
        if fee is None:
            ((to, amount),) = rows
            made = self.hot.pays(_key(to), amount, tick, payload=holds[0].bytes)
        else:
            made = qutil.send_many(self.hot.key, [(_key(to), amount) for to, amount in rows], tick=tick, fee=fee).signed_by(
                self.hot.subseed
            )
        return await self._store(made, list(holds), fee or 0), made

    async def _hold(self, hold: UUID) -> tuple[str, int]:
        row = (await self.owner.execute(sa.text("SELECT address, amount FROM holds WHERE id = :h"), {"h": hold})).one()
        return row.address, row.amount

    async def _store(self, made: Transaction, holds: list[UUID], fee: int) -> UUID:
        payment, before = uuid4(), self.devnet.balance(self.hot)
        code = await self.signer.fetchval(
            "SELECT sign_payout($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            payment,
            self.hot.identity,
            identity.encode(made.destination),
            made.amount,
            fee,
            made.tick,
            made.input_type,
            made.payload,
            made.to_bytes(),
            made.id,
            before["numberOfOutgoingTransfers"],
            int(before["outgoingAmount"]),
            holds,
        )
        assert code == 0, code
        return payment

    async def sweep(self, source: Person, amount: int, *, ahead: int = 12) -> tuple[UUID, Transaction]:
        """Sign and store a sweep from an address of ours to the hot one."""
        payment, before = uuid4(), self.devnet.balance(source)
        made = source.pays(self.hot.key, amount, self.devnet.tick + ahead)
        code = await self.signer.fetchval(
            "SELECT sign_sweep($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            payment,
            source.identity,
            self.hot.identity,
            amount,
            made.tick,
            made.to_bytes(),
            made.id,
            before["numberOfOutgoingTransfers"],
            int(before["outgoingAmount"]),
        )
        assert code == 0, code
        return payment, made

    async def decided(self, payment: UUID, *, rounds: int = 12) -> str:
        """The payment's state after its tick is final, and it was asked about as often as it takes."""
        tick = await self.value("SELECT tick FROM payments WHERE id = :id", id=payment)
        await self.treasurer.payer.step()
        await self.advance(max(7, tick + 7 - self.devnet.tick))
        for _ in range(rounds):
            await self.treasurer.payer.step()
            state, _ = await self.payment(payment)
            if state in ("PAID", "DEAD"):
                break
            await asyncio.sleep(0.03)
        return (await self.payment(payment))[0]


def _key(address: str) -> bytes:
    return identity.decode(address)


@contextlib.asynccontextmanager
async def open_till(
    database: Database, owner: AsyncConnection, devnet: Devnet, *, doors: Sequence[str], apart_s: float = 0.05
) -> AsyncIterator[Till]:
    """A treasury that has looked at the chain once. Args: doors, of the devnet, each an endpoint."""
    resources = database.resources("qubix_treasury", network="devnet")
    limits = RpcLimits(requests_per_s=2000, burst=100, timeout_s=1, rounds_max=2, backoff_min_s=0.01, backoff_max_s=0.05)
    wire = Wire([devnet.url + door for door in doors], clock=SystemClock(), limits=limits)
    resources.__dict__["qubic"] = QubicRpc(wire)
    treasurer = Treasurer(
        resources,
        rules=Rules(apart_s=apart_s),
        patience=Patience(first_s=0.03, most_s=0.03, unknown_s=0.1),
        pauses=Pauses(waiting_s=0.0, doubtful_s=0.0),
    )
    signer = await asyncpg.connect(database.url("qubix_signer"))
    try:
        await treasurer.lead()
        till = Till(database, owner, devnet, treasurer, signer)
        await treasurer.watch()
        await till.address("hot", who=till.hot)
        await till.address("house", who=till.house)
        yield till
    finally:
        await signer.close()
        await resources.close()
