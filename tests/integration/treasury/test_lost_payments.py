"""After a restore: what the chain shows and the backup did not know is booked, or paid again, by proof alone, whatever an archive says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from qubix.bootstrap import Resources, scope
from qubix.chains.qubic.transaction import Transaction
from qubix.cli.recover import _book_one, _explained, _say_unpaid
from qubix.kernel.errors import Conflict
from qubix.treasury.oversight import Oversight
from qubix.treasury.recovering import Explained
from qubix.treasury.signing import memo
from tests.conftest import Database
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import PAYER, Till

FUNDED = (PAYER,)


async def restored(till: Till) -> tuple[UUID, UUID, Person]:
    """A user whose withdrawal of 300 is open in the backup, and the halt of the restore. Returns: user, withdrawal, payee."""
    user, address = await till.user()
    await till.paid(address, 1000)
    sweep, _ = await till.sweep(address, 1000)
    assert await till.decided(sweep) == "PAID"
    payee = Person(user.int % 10**6 + 20_000)
    hold = await till.withdraw(user, 300, payee)
    await till.value(
        """INSERT INTO payout_halts (subject, rule, figures, needs_person) VALUES ('*', 'restored', '{"restored": [{"until": 1}]}', true) RETURNING 1"""
    )
    return user, hold, payee


async def sent(till: Till, hold: UUID, payee: Person, amount: int = 300) -> Transaction:
    """What the old machine signed for it after the backup."""
    made = till.hot.pays(payee.key, amount, till.devnet.tick + 3, payload=memo(hold))
    assert till.devnet.send(made).status_code == 200
    await till.advance()
    return made


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Resources]:
    """The treasury's role on its own machine."""
    held = database.resources("qubix_treasury", network="devnet")
    yield held
    await held.close()


async def listed(till: Till, desk: Resources) -> list[Explained]:
    await till.treasurer.lost.step()
    async with scope(desk) as s:
        return await _explained(Oversight(s.connection))


async def resumes(till: Till) -> bool:
    return await Oversight(till.owner).resume("*")


@pytest.mark.parametrize("mode", ["false", "missing"])
async def test_an_archive_that_does_not_tell_of_a_payment_lets_nobody_be_paid_twice(either: Till, desk: Resources, mode: str) -> None:
    till = either
    user, hold, payee = await restored(till)
    till.devnet.order("/faults", kind="money_flew", mode=mode, for_ticks=10_000)
    made = await sent(till, hold, payee)
    assert int(till.devnet.balance(payee)["balance"]) == 300, "it has paid"
    [one] = await listed(till, desk)
    assert (one.lost.tx_id, one.is_bookable, [place.owed for place in one.places]) == (made.id, False, [hold])
    with pytest.raises(Conflict, match="would be paid again"):
        await resumes(till)
    till.devnet.order("/faults/clear")
    [one] = await listed(till, desk)
    assert one.is_bookable
    with pytest.raises(Conflict, match="is proved"):
        await _say_unpaid(desk, one, "a mistake")
    await _book_one(desk, one, [], False, "a person")
    assert (await till.wallet(user), await listed(till, desk)) == (700, [])
    await till.balances()
    assert await resumes(till)
    await till.sound()


async def test_a_payment_that_never_moved_money_is_paid_again_once_that_is_proved(either: Till, desk: Resources) -> None:
    till = either
    _, hold, payee = await restored(till)
    till.devnet.order("/faults", kind="money_flew", mode="true", for_ticks=10_000)
    await sent(till, hold, payee, 5_000)  # more than the paying address has
    [one] = await listed(till, desk)
    assert not one.is_bookable, "the archive says that it paid"
    till.devnet.order("/faults/clear")
    assert await listed(till, desk) == []
    await till.balances()
    assert await resumes(till)
    assert await till.value("SELECT id FROM payable_holds") == hold


async def test_what_nothing_proves_is_a_persons_to_decide(till: Till, desk: Resources) -> None:
    _, hold, payee = await restored(till)
    till.devnet.order("/faults", kind="money_flew", mode="missing", for_ticks=10_000)
    await sent(till, hold, payee, 5_000)
    [one] = await listed(till, desk)
    assert "does not say" in one.lost.doubt
    await _say_unpaid(desk, one, "seen elsewhere; decided by a person")
    assert await listed(till, desk) == []
    assert await till.value("SELECT reason FROM lost_verdicts") == "seen elsewhere; decided by a person"


async def test_payouts_go_on_only_after_the_paying_address_was_compared_since_the_restore(till: Till) -> None:
    await restored(till)
    with pytest.raises(Conflict, match="has not been compared"):
        await resumes(till)
    await till.balances()
    assert await resumes(till)
