"""What goes wrong, when it is asked to: pure and seeded, so that a failing run can be run again.

A fault strikes the next n occasions, or each with probability p, or until a tick. What is said of a transaction (drop, forget, money_flew)
is decided by the seed and its id, so the same question gets the same wrong answer. Faults live in the process: a restart clears them.
"""

from __future__ import annotations

import enum
import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Final, Literal

Area = Literal["all", "live", "query", "broadcast"]
_EVEN: Final = 2**64


class Kind(enum.StrEnum):
    """What can go wrong."""

    UNREACHABLE = "unreachable"
    """The connection breaks, nothing happened."""
    LIMIT = "limit"
    """429 with Retry-After, nothing happened."""
    ERROR = "error"
    """500 with code 13, nothing happened."""
    AMBIGUOUS = "ambiguous"
    """A broadcast is accepted, and its answer never comes (`answer`: hang, cut or error)."""
    DROP = "drop"
    """A broadcast is answered 200 and goes nowhere."""
    STALE = "stale"
    """The answer comes from a node, or an archive, that is `ticks` behind."""
    MONEY_FLEW = "money_flew"
    """The archive's moneyFlew is wrong (`mode`: true, false, inverted, missing)."""
    FORGET = "forget"
    """The archive denies a transaction that it has, its events too."""
    DUPLICATE = "duplicate"
    """Lists bring every row twice, the last one first."""
    HALT = "halt"
    """The whole network stands still: the clock brings no tick, only the admin's steps do."""


@dataclass(frozen=True)
class Fault:
    """One fault that is armed.

    Args: kind; next, how many occasions it strikes; p, how probably it strikes each; until_tick, the last tick of it; door, "a" or "b"
        (None: both); area, which calls; answer, hang_s: of `ambiguous`; retry_after_s: of `limit`; ticks: of `stale`; mode: of
        `money_flew`; sticky: a dropped transaction is dropped again whenever it is sent.
    """

    kind: Kind
    next: int | None = None
    p: float = 1.0
    until_tick: int | None = None
    door: str | None = None
    area: Area = "all"
    answer: Literal["hang", "cut", "error"] = "hang"
    hang_s: float = 30.0
    retry_after_s: int = 1
    ticks: int = 5
    mode: Literal["true", "false", "inverted", "missing"] = "inverted"
    sticky: bool = True


@dataclass
class Faults:
    """The armed faults. Args: seed, any text; the same seed and questions give the same answers."""

    seed: str = "qubix"
    armed: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311  (faults, not secrets)
        self._struck: set[tuple[Kind, str]] = set()

    def arm(self, fault: Fault) -> None:
        """Add a fault; earlier ones stay."""
        self.armed.append(fault)

    def clear(self, seed: str | None = None) -> None:
        """No fault any more, and the chances from their beginning."""
        self.seed = self.seed if seed is None else seed
        self.armed = []
        self.__post_init__()

    def strikes(self, kind: Kind, tick: int, *, door: str, area: Area = "all", of: str | None = None) -> Fault | None:
        """The fault of this kind that strikes now, if one does; an occasion of it is then used up.

        Args: tick, the current one; door, where the question came in; area, the kind of call; of, the transaction that it is about.
        """
        for place, fault in enumerate(self.armed):
            if fault.kind is not kind or fault.door not in (None, door) or fault.area not in ("all", area):
                continue
            if fault.until_tick is not None and tick > fault.until_tick:
                continue
            if of is not None and fault.sticky and (kind, of) in self._struck:
                return fault
            if fault.next == 0 or not self._hits(fault, of):
                continue
            if fault.next is not None:
                self.armed[place] = replace(fault, next=fault.next - 1)
                if of is not None and fault.sticky:
                    self._struck.add((kind, of))
            return fault
        return None

    def _hits(self, fault: Fault, of: str | None) -> bool:
        if fault.p >= 1:
            return True
        if of is None or not fault.sticky:
            return self._chance.random() < fault.p
        drawn = hashlib.sha256(f"{self.seed}/{fault.kind}/{of}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") / _EVEN < fault.p
