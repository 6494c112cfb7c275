"""`qubix treasury recover` on payments that a restored backup knows in part: whoever bears them, no withdrawal in them is paid again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.chains.qubic import identity, qutil
from qubix.cli.recover import _book_one, _explained
from qubix.kernel.errors import Conflict, Invalid
from qubix.treasury.oversight import Oversight
from qubix.treasury.recovering import Explained
from tests.conftest import Database
from tests.integration.chains.devnet_process import Person
from tests.integration.ledger.people import born, person, posted, problems

FEE = 10
HOT, HOUSE, ANN_AT, BOB_AT = Person(801), Person(802), Person(803), Person(804)


class Restored:
    """A ledger just restored, in which the chain shows one send-many to Ann and Bob; Ann's withdrawal alone is in the backup."""

    def __init__(self, owner: AsyncConnection, held: Resources) -> None:
        self.owner = owner
        self.held = held
        self.ann = self.bob = self.hold = UUID(int=0)

    async def make(self, *, house: int = 1000, bob: int = 0) -> None:
        self.ann, self.bob = await person(self.owner), await person(self.owner)
        for who, purpose, user in (
            (HOT, "hot", None),
            (HOUSE, "house", None),
            (Person(805), "user", self.ann),
            (Person(806), "user", self.bob),
        ):
            await self.run(
                """INSERT INTO chain_addresses (identity, purpose, user_id, given_at)
                   VALUES (:i, :p, cast(:u AS uuid), CASE WHEN cast(:u AS uuid) IS NOT NULL THEN now() END)""",
                i=who.identity,
                p=purpose,
                u=user,
            )
        for name, address, amount in (("ann", Person(805), 500), ("bob", Person(806), bob), ("house", HOUSE, house)):
            if amount:
                await self.pays(address, amount, name)
        self.hold = uuid4()
        assert await self.withdraw(self.hold, self.ann, 300, ANN_AT) == 0
        await self.run(
            """INSERT INTO payout_halts (subject, rule, figures, needs_person) VALUES ('*', 'restored', '{"restored": [{}]}', true)"""
        )
        sent = qutil.send_many(HOT.key, [(ANN_AT.key, 300), (BOB_AT.key, 200)], tick=9, fee=FEE).signed_by(HOT.subseed)
        await self.run(
            """INSERT INTO strangers (tx_id, source, destination, amount, tick, input_type, payload, encoded, money_flew)
               VALUES (:tx, :source, :destination, :amount, 9, :type, :payload, :encoded, true)""",
            tx=sent.id,
            source=HOT.identity,
            destination=identity.encode(sent.destination),
            amount=sent.amount,
            type=sent.input_type,
            payload=sent.payload,
            encoded=sent.to_bytes(),
        )

    async def pays(self, to: Person, amount: int, name: str) -> None:
        """A payment to one of our addresses that the treasury has booked."""
        sql = "SELECT deposit(ARRAY[:tx], '{0}', '{1}', ARRAY[cast(:amount AS bigint)], ARRAY[:address], '{1}', '{proof}', '{NOBODY}')"
        await self.run(sql, tx=name, amount=amount, address=to.identity)

    async def email(self, user: UUID) -> str:
        return str(await self.value("SELECT email FROM users WHERE id = :u", u=user))

    async def run(self, sql: str, **values: object) -> None:
        await self.owner.execute(sa.text(sql), values)

    async def value(self, sql: str, **values: object) -> object:
        return await self.owner.scalar(sa.text(sql), values)

    async def withdraw(self, hold: UUID, user: UUID, amount: int, to: Person) -> object:
        return await self.value("SELECT withdraw(:h, :u, 1::smallint, :a, :t)", h=hold, u=user, a=amount, t=to.identity)

    async def found(self) -> list[Explained]:
        async with scope(self.held) as s:
            return await _explained(Oversight(s.connection))

    async def payable(self) -> list[UUID]:
        """What the signer pays as soon as payouts go on."""
        return list((await self.owner.execute(sa.text("SELECT id FROM payable_holds"))).scalars())


@pytest.fixture
async def restored(database: Database, owner: AsyncConnection) -> AsyncIterator[Restored]:
    await born(owner, "devnet")
    held = database.resources("qubix_treasury", network="devnet")
    yield Restored(owner, held)
    await held.close()


async def test_what_the_house_bears_of_a_send_many_leaves_no_withdrawal_of_it_to_be_paid_again(restored: Restored) -> None:
    await restored.make()
    [one] = await restored.found()
    assert [place.owed for place in one.places] == [restored.hold, None]
    await _book_one(restored.held, one, [], True, "a person")
    assert await restored.payable() == []
    assert await restored.found() == []
    assert await posted(restored.owner, restored.ann) == 200
    assert await restored.value("SELECT posted FROM accounts WHERE kind = 'house' AND asset = 1") == 1000 - 200 - FEE
    assert await problems(restored.owner) == []


async def test_a_withdrawal_that_cannot_all_be_made_again_leaves_none_open(restored: Restored) -> None:
    await restored.make(bob=100)
    [one] = await restored.found()
    with pytest.raises(Conflict, match="has less than"):
        await _book_one(restored.held, one, [await restored.email(restored.bob)], False, "a person")
    with pytest.raises(Invalid, match="1 payees"):
        await _book_one(restored.held, one, [await restored.email(restored.bob)] * 2, False, "a person")
    assert await restored.payable() == [restored.hold]
    assert await restored.found() == [one], "nothing of it was kept"


async def test_several_withdrawals_that_were_asked_for_after_the_backup_are_made_again_together_or_not_at_all(restored: Restored) -> None:
    await restored.make(bob=100)
    await restored.run("UPDATE holds SET state = 'VOIDED', evidence = 'a test', ended_at = now() WHERE id = :h", h=restored.hold)
    await restored.run("UPDATE accounts SET held = 0 WHERE owner_id = :u AND asset = 1", u=restored.ann)
    [one] = await restored.found()
    users = [await restored.email(restored.ann), await restored.email(restored.bob)]
    with pytest.raises(Conflict, match="has less than"):
        await _book_one(restored.held, one, users, False, "a person")
    assert await restored.payable() == []
    await _book_one(restored.held, one, [], True, "a person")
    assert (await restored.payable(), await restored.found(), await posted(restored.owner, restored.ann)) == ([], [], 500)
    assert await problems(restored.owner) == []


async def test_what_was_asked_for_after_the_backup_is_charged_to_whom_it_was(restored: Restored) -> None:
    await restored.make(bob=900)
    [one] = await restored.found()
    await _book_one(restored.held, one, [await restored.email(restored.bob)], False, "a person")
    assert [await posted(restored.owner, user) for user in (restored.ann, restored.bob)] == [200, 700]
    assert (await restored.payable(), await restored.found(), await problems(restored.owner)) == ([], [], [])


async def test_a_house_that_cannot_pay_is_asked_again_and_nobody_is_charged_twice(restored: Restored) -> None:
    await restored.make(house=0)
    [one] = await restored.found()
    with pytest.raises(Conflict, match="the house cannot pay"):
        await _book_one(restored.held, one, [], True, "a person")
    assert await restored.payable() == []
    await restored.pays(HOUSE, 1000, "later")
    [again] = await restored.found()
    assert [place.owed for place in again.places] == [restored.hold, None], "it is captured, and still known as paid by this"
    await _book_one(restored.held, again, [], True, "a person")
    assert (await posted(restored.owner, restored.ann), await restored.payable(), await problems(restored.owner)) == (200, [], [])


async def test_the_house_bears_nothing_that_the_books_explain(restored: Restored) -> None:
    await restored.make(bob=900)
    later = uuid4()
    await restored.run("DELETE FROM payout_halts")
    assert await restored.withdraw(later, restored.bob, 200, BOB_AT) == 0
    [one] = await restored.found()
    with pytest.raises(Invalid, match="nobody has to bear it"):
        await _book_one(restored.held, one, [], True, "a person")


async def test_nobody_withdraws_or_calls_off_before_the_chain_is_reconciled(restored: Restored) -> None:
    await restored.make()
    assert await restored.withdraw(uuid4(), restored.ann, 1, ANN_AT) == -8
    assert await restored.withdraw(restored.hold, restored.ann, 300, ANN_AT) == 1
    cancel = "SELECT cancel_withdrawal(:h, :u)"
    assert await restored.value(cancel, h=restored.hold, u=restored.ann) == -8, "the chain has paid it"
    await restored.run("DELETE FROM payout_halts")
    assert await restored.value(cancel, h=restored.hold, u=restored.ann) == 0
