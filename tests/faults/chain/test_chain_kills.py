"""`kill -9` of the treasury, the signer and PostgreSQL at every place between the reserving of a withdrawal and its end.

The places are read from the code, so that a new one is killed at as soon as it is written.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from qubix.postgres.embedded import OWNER
from tests.faults.chain.world import AHEAD, World
from tests.faults.places import places

pytestmark = pytest.mark.postgres
SEED: Final = "kills"
ROUNDS_MAX: Final = 4
BY_THIEVES: Final = {"treasury.unknown"}
"""Places that are reached where something is wrong for good: test_chain_theft.py kills there."""


PLACES: Final = places("treasury", "signer")


def test_both_processes_have_places() -> None:
    assert {name.partition(".")[0] for name in PLACES} == {"treasury", "signer"}
    assert set(PLACES) >= BY_THIEVES
    assert len(PLACES) >= 10


def work(world: World, chance: random.Random, *, dropped: int) -> None:
    """Something of everything: a deposit (and so a sweep), withdrawals that go together; some transactions are dropped first."""
    if dropped:
        world.devnet.order("/faults", kind="drop", next=dropped)
    world.gives(world.user().address, chance.randint(1, 1000))
    for _ in range(chance.randint(2, 4)):
        world.withdraws(world.payer, chance.randint(1, 1000))


def there_or_idle(world: World, there: Callable[[], bool], idle_at: int) -> bool:
    return there() or (world.value(OWNER, "SELECT cursor FROM chain_state") > idle_at and world.is_quiet())


def until_there(world: World, place: str, chance: random.Random, there: Callable[[], bool]) -> None:
    """Give it work until the place that is armed is reached."""
    for _ in range(ROUNDS_MAX):
        work(world, chance, dropped=2 if place.endswith(".dead") else 0)
        idle_at = world.devnet.tick + AHEAD
        world.until(partial(there_or_idle, world, there, idle_at), "the place is reached, or all is done")
        if there():
            return
    raise AssertionError(f"the place is never reached\n{world.story()}")


@pytest.mark.parametrize("place", [name for name in PLACES if name not in BY_THIEVES])
def test_killed_at(world: World, place: str) -> None:
    """First its own process dies there, at the first or the second time; then, while it is there again, PostgreSQL."""
    chance = random.Random(f"{SEED}/{place}")
    program = world.signer if place.startswith("signer.") else world.treasurer
    assert world.payer
    program.restart(f"{place}:{chance.randint(1, 2)}")
    until_there(world, place, chance, lambda: program.exit_code is not None)
    assert program.end() == -signal.SIGKILL
    program.start(f"{place}:1:stop")
    until_there(world, place, chance, lambda: program.is_frozen)
    world.kill_database()
    os.kill(program.pid, signal.SIGCONT)
    world.comes_to_rest()
