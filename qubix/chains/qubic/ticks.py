"""The tick never runs backwards: answers from an older one than we have seen come from a node that lags behind its load balancer."""

from __future__ import annotations

import enum
from typing import Final

JUMP_MAX: Final = 1_000
"""A tick further ahead than this is believed when a second endpoint says it too, or no other one answers; a sole endpoint has to say it
twice: a single liar, or a slip, would otherwise make every honest answer look old."""


class Standing(enum.Enum):
    """What an answer's tick says about the answer."""

    GOOD = "good"
    OLDER = "older"
    JUMP = "jump"


class TickGuard:
    """The highest tick of one kind (head, or archive) that was believed.

    Args: alone, whether there is but one endpoint, which nobody can confirm; highest, what is believed already.
    """

    def __init__(self, *, alone: bool, highest: int = 0) -> None:
        self.highest = highest
        self._alone = alone
        self._claims: dict[str, int] = {}

    def judge(self, endpoint: str, tick: int) -> Standing:
        """Judge a tick, and remember it if it is believed or may be confirmed later."""
        if tick < self.highest:
            return Standing.OLDER
        near = tick <= self.highest + JUMP_MAX if self.highest else self._alone
        confirmed = any(said >= tick - JUMP_MAX for other, said in self._claims.items() if self._alone or other != endpoint)
        if near or confirmed:
            self.believe(tick)
            return Standing.GOOD
        self._claims[endpoint] = tick
        return Standing.JUMP

    def believe(self, tick: int) -> None:
        """Take it, confirmed or not."""
        self.highest = max(self.highest, tick)
        self._claims.clear()
