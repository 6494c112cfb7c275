"""Where people look at what happened: links to an explorer's pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAINNET: Final = "https://explorer.qubic.org/network"


@dataclass(frozen=True, slots=True)
class Explorer:
    """Links under one base: the public explorer's, or the devnet's own, which has the same paths.

    Args: base, a URL without a slash at its end.
    """

    base: str = MAINNET

    def transaction(self, tx_id: str) -> str:
        """The page of a transaction, 60 letters a–z."""
        return f"{self.base}/tx/{tx_id}"

    def address(self, identity: str) -> str:
        """The page of an identity, 60 letters A–Z."""
        return f"{self.base}/address/{identity}"

    def tick(self, number: int) -> str:
        """The page of a tick."""
        return f"{self.base}/tick/{number}"
