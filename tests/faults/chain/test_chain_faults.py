"""Each way in which the network fails, under real processes: money comes in once, goes out once, and the books say what the chain says."""

from __future__ import annotations

import itertools
import time
from typing import Any
from uuid import uuid4

import pytest

from qubix.chains.qubic import identity, qutil
from tests.faults.chain.world import User, World
from tests.integration.chains.devnet_process import Person

pytestmark = pytest.mark.postgres
AMOUNTS = itertools.count(1_000)
FAR = 60
"""Ticks ahead of what is signed and sent here: enough on a busy machine."""
LIE_S = 5.0
"""How long a lie is told. Every question that decides something is asked at least twice in that time."""


def withdraw(world: World, *, n: int = 1) -> list[Any]:
    return [world.withdraws(world.payer, next(AMOUNTS)) for _ in range(n)]


def pay_in(world: World, *, n: int = 1) -> dict[User, int]:
    """Deposits that are on their way."""
    due = {world.user(): next(AMOUNTS) for _ in range(n)}
    for user, amount in due.items():
        world.gives(user.address, amount)
    return due


def until_signed(world: World, withdrawals: list[Any]) -> None:
    world.until(lambda: len(world.signed(*withdrawals)), "a payment is signed")


def credited(world: World, due: dict[User, int]) -> None:
    assert {user: world.wallet(user) for user in due} == due


def outsider(world: World, amount: int) -> Person:
    """Somebody outside with so much money."""
    person = Person(uuid4().int)
    world.gives(person.identity, amount)
    world.until(lambda: int(world.devnet.balance(person)["balance"]) == amount, "the outsider has money")
    return person


def test_money_on_its_way_both_ways_outlives_an_hour_without_the_network(world: World) -> None:
    before = withdraw(world, n=2)
    until_signed(world, before)
    world.devnet.order("/faults", kind="unreachable")
    due = pay_in(world, n=2)
    during = withdraw(world, n=2)
    world.devnet.step(3600)
    time.sleep(2)
    assert [world.state(one) for one in during] == ["OPEN"] * 2
    world.comes_to_rest()
    credited(world, due)
    assert [world.state(one) for one in before + during] == ["CAPTURED"] * 4


def test_a_broadcast_that_was_accepted_and_never_answered_pays_once(world: World) -> None:
    for answer, times in (("hang", 1), ("cut", 2), ("error", 2)):
        world.devnet.order("/faults", kind="ambiguous", answer=answer, next=times, hang_s=7)
    due = pay_in(world, n=3)
    sent = withdraw(world, n=2)
    world.until(lambda: all(world.state(one) == "CAPTURED" for one in sent), "it is paid though no answer came")
    world.comes_to_rest()
    credited(world, due)


def test_what_the_network_drops_in_silence_is_signed_anew_once_it_is_dead(world: World) -> None:
    assert world.payer
    world.comes_to_rest()
    world.devnet.order("/faults", kind="drop", next=2)
    sent = withdraw(world, n=3)
    world.until(lambda: any(row["state"] == "DEAD" for row in world.signed(*sent)), "a payment is dead")
    world.comes_to_rest()
    assert [row["state"] for row in world.signed(*sent)][-1] == "PAID"


@pytest.mark.parametrize(("path", "ticks"), [("/skip", 40), ("/epoch", 0), ("/epoch", 400)])
def test_a_payment_whose_tick_never_comes_is_signed_anew(world: World, path: str, ticks: int) -> None:
    """Skipped ticks; a change of epoch that loses what is pending, with and without skipped ticks: the same bytes, sent again in time, are paid.

    The network stands still meanwhile, so that what is pending stays pending until it is lost.
    """
    assert world.payer
    world.comes_to_rest()
    world.devnet.order("/faults", kind="halt")
    sent = withdraw(world)
    world.until(lambda: world.status()["pending"], "a payment is pending")
    lost = pay_in(world)
    world.devnet.order(path, ticks=ticks)
    in_time = ticks == 0
    if in_time:
        world.until(lambda: world.status()["pending"], "the same bytes are sent again")
    due = pay_in(world)
    world.comes_to_rest()
    *dead, last = [row["state"] for row in world.signed(*sent)]
    assert last == "PAID"
    assert set(dead) == (set() if in_time else {"DEAD"})
    credited(world, due | dict.fromkeys(lost, 0))


def test_a_wrong_money_flew_neither_pays_nor_credits_in_either_direction(world: World) -> None:
    """What flew is called unflown: no credit, no second payment. What did not fly is called flown: no credit."""
    poor, real, cheated = outsider(world, 5_000), world.user(), world.user()
    world.devnet.order("/faults", kind="money_flew", mode="inverted")
    world.gives(real.address, 777)
    tick = world.devnet.tick + FAR
    spent = poor.pays(Person(uuid4().int).key, 5_000, tick)
    unflown = poor.pays(identity.decode(cheated.address), 5_000, tick)
    assert [world.devnet.send(one).status_code for one in (spent, unflown)] == [200, 200]
    [sent] = withdraw(world)
    world.until(lambda: len(world.rows("SELECT 1 FROM incoming WHERE state = 'DOUBTFUL'")) == 2, "both are doubted")
    time.sleep(LIE_S)
    assert (world.wallet(real), world.wallet(cheated)) == (0, 0)
    assert world.state(sent) == "OPEN"
    world.comes_to_rest()
    assert (world.wallet(real), world.wallet(cheated)) == (777, 0)


def test_an_archive_that_falls_far_behind_delays_and_decides_nothing(world: World) -> None:
    assert world.payer
    world.comes_to_rest()
    world.devnet.order("/faults", kind="halt")
    sent = withdraw(world)
    until_signed(world, sent)
    world.devnet.order("/archive", lag=150, log_lag=20)
    world.devnet.order("/faults/clear")
    due = pay_in(world)
    time.sleep(LIE_S)
    assert world.state(sent[0]) == "OPEN"
    assert {row["state"] for row in world.signed(*sent)} <= {"SIGNED", "UNKNOWN"}
    world.devnet.order("/archive", lag=3)
    world.comes_to_rest()
    credited(world, due)


def test_ticks_that_go_backwards_are_not_believed(world: World) -> None:
    """Every second answer comes from a node or an archive that is 40 ticks behind."""
    world.devnet.order("/faults", kind="stale", ticks=40, p=0.5)
    due = pay_in(world, n=2)
    sent = withdraw(world, n=3)
    world.until(lambda: all(world.state(one) == "CAPTURED" for one in sent), "paid by a network that stumbles")
    world.until(lambda: all(world.wallet(user) == amount for user, amount in due.items()), "credited by a network that stumbles")
    world.comes_to_rest()


def test_one_endpoint_that_lies_delays_and_decides_nothing(world: World) -> None:
    """Door b denies half of the transactions, and turns moneyFlew of half of them round."""
    world.devnet.order("/faults/clear", seed="liar")
    world.devnet.order("/faults", kind="forget", door="b", p=0.5)
    world.devnet.order("/faults", kind="money_flew", door="b", p=0.5)
    due = pay_in(world, n=6)
    sent = withdraw(world, n=2)
    until_signed(world, sent)
    time.sleep(2 * LIE_S)
    assert all(world.wallet(user) in (0, amount) for user, amount in due.items())
    world.comes_to_rest()
    credited(world, due)


def test_rows_that_come_twice_and_in_another_order_are_counted_once(world: World) -> None:
    world.devnet.order("/faults", kind="duplicate")
    rich = outsider(world, 50_000)
    due = {world.user(): next(AMOUNTS) for _ in range(4)}
    payments = [(identity.decode(user.address), amount) for user, amount in due.items()]
    many = qutil.send_many(rich.key, payments, tick=world.devnet.tick + FAR, fee=10).signed_by(rich.subseed)
    assert world.devnet.send(many).status_code == 200
    due |= pay_in(world, n=2)
    sent = withdraw(world, n=3)
    world.until(lambda: all(world.state(one) == "CAPTURED" for one in sent), "paid though every row comes twice")
    world.until(lambda: all(world.wallet(user) == amount for user, amount in due.items()), "credited though every row comes twice")
    world.comes_to_rest()
    credited(world, due)
