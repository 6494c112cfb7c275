"""R1 and R2: payouts stop when the chain and the records differ, for as long as they do."""

from __future__ import annotations

import sqlalchemy as sa

from qubix.treasury.oversight import Oversight
from qubix.treasury.reconciling import Reconciler
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import PAYER, Till

STRANGER = Person(701)
FUNDED = (PAYER, STRANGER)


async def record(till: Till, address: Person, amount: int, name: str) -> None:
    """A chain row that no chain knows, with its transfer, by a hand that should not have done so."""
    codes = await till.value(
        "SELECT deposit(ARRAY[:tx], '{0}', '{1}', ARRAY[cast(:amount AS bigint)], ARRAY[:address], '{1}', '{forged}', '{NOBODY}')",
        tx=name,
        amount=amount,
        address=address.identity,
    )
    assert codes == [0]


async def test_agreeing_figures_stop_nothing(till: Till) -> None:
    _, address = await till.user()
    await till.paid(address, 100)
    await till.paid(till.hot, 50)
    await till.balances()
    assert await till.halts() == {}


async def test_r1_less_at_an_address_than_recorded_stops_all_payouts_until_it_is_there_again(till: Till) -> None:
    _, address = await till.user()
    await till.paid(address, 100)
    await record(till, address, 7, "forged")
    await till.balances()
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, needs_person) == ("R1", False)
    assert {**figures["R1"][address.identity], "tick": 0} == {"balance": 100, "recorded": 107, "tick": 0}
    assert [halt["subject"] for halt in (await till.status())["halts"]] == ["*"]
    till.devnet.order("/faults", kind="forget", for_ticks=FORGOTTEN)
    await till.paid(address, 7)
    till.devnet.order("/faults/clear")
    await till.balances()
    assert await till.halts() == {}


FORGOTTEN = 20
"""Ticks in which both endpoints hide what comes: so it is there, and not recorded."""


async def test_r1_more_at_a_users_address_stops_that_user_alone(till: Till) -> None:
    _, address = await till.user()
    till.devnet.order("/faults", kind="forget", for_ticks=1000)
    await till.paid(address, 1)
    await till.balances()
    halts = await till.halts()
    assert list(halts) == [address.identity]
    assert halts[address.identity][2] is False


async def test_an_address_that_stops_payouts_is_looked_at_in_every_round_however_many_there_are(till: Till) -> None:
    _, address = await till.user()
    for _ in range(5):
        await till.user()
    till.treasurer.reconciler = Reconciler(till.treasurer.watcher.witnesses, till.treasurer.books, most=1)
    till.devnet.order("/faults", kind="forget", for_ticks=1000)
    await till.paid(address, 1)
    for _ in range(6):
        await till.balances()
    assert list(await till.halts()) == [address.identity]
    till.devnet.order("/faults/clear")
    for _ in range(2):  # one has the tick read again, one sees that it helped
        await till.balances()
    assert await till.halts() == {}


async def test_r1_more_at_the_paying_address_stops_all_payouts(till: Till) -> None:
    till.devnet.order("/faults", kind="forget", for_ticks=1000)
    await till.paid(till.hot, 5)
    await till.balances()
    assert list(await till.halts()) == ["*"]
    till.devnet.order("/faults/clear")
    await till.balances()
    await till.balances()
    assert await till.halts() == {}, "the tick of the latest payment is read again"


async def test_r1_is_judged_at_the_paying_address_however_often_something_is_on_its_way_to_it(till: Till) -> None:
    sources = []
    for _ in range(2):
        _, address = await till.user()
        await till.paid(address, 100)
        sources.append(address)
    await record(till, till.hot, 7, "forged")
    first, _ = await till.sweep(sources[0], 10)
    await till.treasurer.payer.step()
    till.devnet.step(13)
    await till.treasurer.reconciler.ask()
    await till.advance()
    await till.treasurer.reconciler.judge()
    assert await till.halts() == {}, "the sweep is not decided yet"
    assert till.treasurer.reconciler.is_idle
    second, _ = await till.sweep(sources[1], 10, ahead=5)
    await till.treasurer.payer.step()
    assert await till.decided(first) == "PAID"
    assert (await till.payment(second))[0] == "SIGNED"
    await till.balances()
    assert list(await till.halts()) == ["*"]


async def test_r2_a_chain_row_without_its_transfer_stops_all_payouts(till: Till) -> None:
    _, address = await till.user()
    await till.paid(address, 100)
    await till.owner.execute(
        sa.text("""INSERT INTO chain_rows (id, kind, tx_id, index, asset, amount, address, tick, archived_at, second_proof)
                   VALUES (gen_random_uuid(), 'deposit', 'forged', 0, 1, 3, :address, 1, now(), 'none')"""),
        {"address": till.house.identity},
    )
    await till.treasurer.reconciler.judge()
    rule, figures, _ = (await till.halts())["*"]
    assert (rule, figures) == ("R2", {"R2": {"total": {"recorded": 103, "chain_account": 100}}})


async def test_a_halt_for_a_person_stays_when_the_figures_agree_again(till: Till) -> None:
    user, address = await till.user()
    await till.paid(address, 100)
    till.pay(STRANGER, 60, payer=address)
    await till.advance()
    await till.balances()
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, needs_person, set(figures)) == ("R1, S5", True, {"R1", "S5"})
    till.devnet.order("/faults", kind="forget", for_ticks=FORGOTTEN)
    await till.paid(address, 60)
    till.devnet.order("/faults/clear")
    await till.balances()
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, needs_person, set(figures)) == ("S5", True, {"S5"})
    assert await till.wallet(user) == 100


async def test_what_a_person_explains_ends_no_halt_by_figures_that_still_differ(till: Till) -> None:
    _, address = await till.user()
    await till.paid(address, 100)
    till.pay(STRANGER, 60, payer=address)
    await till.advance()
    await till.balances()
    assert (await till.halts())["*"][::2] == ("R1, S5", True)
    assert not await Oversight(till.owner).resume("*")
    rule, figures, needs_person = (await till.halts())["*"]
    assert (rule, set(figures), needs_person) == ("R1", {"R1"}, False)
