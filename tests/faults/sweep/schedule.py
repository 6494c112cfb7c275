"""What breaks, and when: a pure function of a seed, so that a finding can be replayed.

Every kind of fault is a card of one deck; the deck is shuffled by the seed, dealt to its end, and shuffled again. So a run of a hundred
faults has had nearly every kind, and no kind waits for luck.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.places import places

MACHINES: Final = 3
LEASE_S: Final = 20.0
"""How long a node may be silent before its attempts are lost (`lease_ttl_s`)."""


class Deed(StrEnum):
    """What is done to the target."""

    KILL = "kill"
    FREEZE = "freeze"
    STRIKE = "strike"
    """`kill -9` at a named place of the code."""
    DISTURB = "disturb"
    """The network, at one of its links."""


class Mode(StrEnum):
    """What a link does with what passes."""

    OPEN = "open"
    DELAY = "delay"
    DROP = "drop"
    """Nothing passes while it lasts; what was sent then arrives afterwards, as TCP would have it."""
    CUT = "cut"
    HALF_OPEN = "half_open"
    """The far end is gone and the near end is never told."""
    DUPLICATE = "duplicate"
    """All that a client sends arrives a second time, over another connection."""


@dataclass(frozen=True)
class Fault:
    """One of them.

    Args: number, from 1; target, a process, a place or a link; machine, which of the nodes, None for the platform; pause_s, to wait before
        it; hold_s, how long it lasts; mode, of a link.
    """

    number: int
    deed: Deed
    target: str
    machine: int | None
    pause_s: float
    hold_s: float = 0.0
    mode: Mode = Mode.OPEN

    @property
    def name(self) -> str:
        """For reports: the same for every fault of its kind."""
        what = f"{self.deed} {self.target}" if self.deed is not Deed.DISTURB else f"{self.mode} {self.target}"
        return f"{what} {'longer than the lease' if self.hold_s > LEASE_S else ''}".strip()

    def __str__(self) -> str:
        where = "" if self.machine is None else f" of machine {self.machine}"
        held = f" for {self.hold_s:.1f} s" if self.hold_s else ""
        return f"#{self.number} {self.name}{where}{held}, {self.pause_s:.1f} s after the one before"


@dataclass(frozen=True)
class Kind:
    """A card of the deck. Args: hold_s, from and to."""

    deed: Deed
    target: str
    on_machine: bool = False
    hold_s: tuple[float, float] = (0.0, 0.0)
    mode: Mode = Mode.OPEN


PLATFORM: Final = ("controller", "fabric", "treasury", "signer", "devnet", "postgres", "replica", "haproxy")
SERVE: Final = ("serve_controller", "haproxy_manager", "proxy", "hub")
HEAD: Final = ("head_gcs", "head_raylet", "head")
"""The Ray head: its control store alone, its raylet alone, all of it."""
NODE: Final = ("agent", "raylet", "host", "runner", "machine")
"""What runs on a machine: its agent, Ray, the actor that holds its attempts, one attempt's process; and all of it."""
DATABASE_LINKS: Final = ("web", "controller", "fabric", "treasury", "signer")
RARE: Final = frozenset({"treasury.unknown", "treasury.dead", "controller.discarded"})
"""Places that only a lying chain or an idle day reaches; tests/faults/chain and the unit tests kill there."""
SHORT: Final = (1.0, 6.0)
LONG: Final = (LEASE_S + 6.0, LEASE_S + 10.0)


def deck() -> list[Kind]:
    """Every kind once; what matters most, and the commits of the busiest processes, more often."""
    kinds = [Kind(Deed.KILL, target) for target in (*PLATFORM, *SERVE, *HEAD, "controller", "postgres", "replica")]
    kinds += [Kind(Deed.KILL, target, on_machine=True) for target in (*NODE, *NODE)]
    kinds += [Kind(Deed.FREEZE, target, hold_s=SHORT) for target in PLATFORM]
    kinds += [Kind(Deed.FREEZE, target, on_machine=True, hold_s=SHORT) for target in ("agent", "machine")]
    kinds += [Kind(Deed.FREEZE, "machine", on_machine=True, hold_s=LONG)]
    kinds += [Kind(Deed.STRIKE, place) for place in places() if place not in RARE and not place.startswith("scope.")]
    kinds += [Kind(Deed.STRIKE, f"{place}/{process}") for place in places("scope") for process in ("controller", "replica", "treasury")]
    for mode in (Mode.DELAY, Mode.DROP, Mode.CUT, Mode.HALF_OPEN):
        kinds += [Kind(Deed.DISTURB, "agent", on_machine=True, hold_s=SHORT, mode=mode)]
        kinds += [Kind(Deed.DISTURB, "clients", hold_s=SHORT, mode=mode)]
    kinds += [Kind(Deed.DISTURB, "agent", on_machine=True, hold_s=LONG, mode=mode) for mode in (Mode.DROP, Mode.CUT)]
    kinds += [Kind(Deed.DISTURB, link, on_machine=link == "agent", hold_s=SHORT, mode=Mode.DUPLICATE) for link in ("agent", "clients")]
    for number, link in enumerate(DATABASE_LINKS):
        modes = (Mode.CUT, Mode.DROP, Mode.HALF_OPEN, Mode.DELAY)
        kinds += [Kind(Deed.DISTURB, f"database/{link}", hold_s=SHORT, mode=modes[(number + shift) % len(modes)]) for shift in (0, 1)]
    return kinds


def schedule(seed: int, runs: int) -> Iterator[Fault]:
    """The faults of a sweep. Args: seed; runs, how many."""
    chance = random.Random(seed)
    waiting: list[Kind] = []
    for number in range(1, runs + 1):
        if not waiting:
            waiting = deck()
            chance.shuffle(waiting)
        kind = waiting.pop()
        machine = chance.randrange(MACHINES) if kind.on_machine else None
        pause_s = round(chance.uniform(0.2, 3.0), 2)
        yield Fault(number, kind.deed, kind.target, machine, pause_s, round(chance.uniform(*kind.hold_s), 2), kind.mode)
