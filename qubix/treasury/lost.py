"""After a restore: whether each payment that the chain shows and the backup did not know has paid, asked until it is proved."""

from __future__ import annotations

from typing import Final

from qubix import observability
from qubix.kernel.clock import Clock
from qubix.treasury.books import OpenBooks
from qubix.treasury.observing import Looks, Observer
from qubix.treasury.proving import judged, signed
from qubix.treasury.sending import Rules
from qubix.treasury.watching import Pauses
from qubix.treasury.witnesses import Witnesses

LOOKS_MAX: Final = 8
"""Payments that are asked about in one step."""
KEEP_S: Final = 180.0

log = observability.logger("treasury")


class LostPayments:
    """Decides them as the Payer decides its own. Args: rules, how much proof is enough; pauses, until one that is not proved is asked about again."""

    def __init__(
        self, witnesses: Witnesses, books: OpenBooks, *, clock: Clock, rules: Rules | None = None, pauses: Pauses | None = None
    ) -> None:
        self._books = books
        self._clock = clock
        self._rules = rules or Rules()
        self._again_s = (pauses or Pauses()).doubtful_s
        self._observer = Observer(witnesses, clock=clock, keep_s=KEEP_S)
        self._looks: dict[str, Looks] = {}
        self._asked: dict[str, float] = {}

    async def step(self) -> int:
        """Ask about some that are due. Returns how many were proved. Raises: RpcUnavailable."""
        async with self._books() as books:
            state = await books.rows.state()
            chains = await books.lost.chains()
        now = self._clock.monotonic()
        open_ids = {link.tx_id for chain in chains for link in chain.links if link.paid is None}
        self._looks = {tx_id: looks for tx_id, looks in self._looks.items() if tx_id in open_ids}
        self._asked = {tx_id: at for tx_id, at in self._asked.items() if tx_id in open_ids and now - at < self._again_s}
        due = [(chain, link) for chain in chains for link in chain.links if link.paid is None and link.tx_id not in self._asked]
        proved = 0
        for chain, link in due[:LOOKS_MAX]:
            if state is None:
                break
            self._asked[link.tx_id] = now
            seen = await self._observer.observe(signed(chain, link), state, self._looks.setdefault(link.tx_id, Looks()))
            found = judged(chain, link, seen, self._rules)
            async with self._books() as books:
                await books.lost.judged(found)
            proved += found.paid is not None
            log.info("a lost payment was judged", tx=link.tx_id, tick=link.tick, amount=link.amount, paid=found.paid, reason=found.reason)
        return proved
