"""Whether what is recorded is what the chain says: R1 for each address of ours, R2 for all of them together.

A balance counts once the cursor has passed the tick after which it was that, and nothing up to that tick is undecided at its address. What
was doubted hides no difference.
"""

from __future__ import annotations

from typing import Any, Final

from qubix.chains.qubic.answers import Balance
from qubix.treasury.books import OpenBooks
from qubix.treasury.halting import EVERYBODY, compare
from qubix.treasury.watch_store import Figures
from qubix.treasury.witnesses import Witnesses

ADDRESSES_MAX: Final = 10
"""Deposit addresses in one round, besides our paying one and the house's."""


class Reconciler:
    """Asks for balances in rounds, and judges them when the cursor has passed them. Args: most, addresses in one round."""

    def __init__(self, witnesses: Witnesses, books: OpenBooks, *, most: int = ADDRESSES_MAX) -> None:
        self._witnesses = witnesses
        self._books = books
        self._most = most
        self._after = ""
        self._asked: dict[str, Balance] = {}
        self._undecided: set[str] = set()

    async def ask(self) -> bool:
        """Ask for the balances of the next round, and of every address that stops payouts, for these are to go on as soon as they may.

        A balance that waits for a payment's end is kept: where payments come all the time, every newer one would wait for another.
        Returns: whether an address stops payouts. Raises: RpcUnavailable.
        """
        async with self._books() as books:
            doubted = await books.rows.in_doubt(self._most)
            ours, users = await books.rows.to_reconcile(self._after, self._most)
        for address in dict.fromkeys(doubted + ours + users):
            if address in self._undecided:
                continue
            self._asked[address] = await self._witnesses.rpc.balance(address, max_age_s=0)
        self._after = users[-1] if len(users) == self._most else ""
        return bool(doubted)

    async def judge(self) -> set[int]:
        """Judge the balances that the cursor has passed, and the total.

        Returns: ticks to be read again: when more is there than was recorded, the archive may not have shown the latest payment in time.
        """
        async with self._books() as books:
            recorded, posted = await books.rows.chain_total()
            total = None if recorded == posted else {"recorded": recorded, "chain_account": posted}
            await compare(books.rows, EVERYBODY, "R2", {"total": total})
            state = await books.rows.state()
            cursor = state.cursor if state else 0
            due = {address: asked for address, asked in self._asked.items() if asked.valid_for_tick <= cursor}
            balances = [(address, asked.amount, asked.valid_for_tick) for address, asked in due.items()]
            judged = [one for one in await books.rows.figures(balances) if not one.undecided]
            everybody, alone = _sorted(judged)
            await compare(books.rows, EVERYBODY, "R1", everybody)
            for one in judged:
                if one.purpose == "hot":
                    await books.lost.compared(one.tick)
            for address, wrong in alone.items():
                await compare(books.rows, address, "R1", {address: wrong})
        for one in judged:
            self._asked.pop(one.address, None)
        self._undecided = due.keys() - {one.address for one in judged}
        return {due[one.address].latest_incoming_tick for one in judged if one.balance > one.recorded}

    @property
    def is_idle(self) -> bool:
        """Whether every balance that was asked for is judged, or waits for nothing but a payment's end."""
        return self._asked.keys() <= self._undecided


Judged = dict[str, dict[str, Any] | None]


def _sorted(figures: list[Figures]) -> tuple[Judged, Judged]:
    """What concerns all payouts, and what concerns one user's alone (decision 0006); None where the figures agree."""
    everybody: Judged = {}
    alone: Judged = {}
    for one in figures:
        wrong = None if one.balance == one.recorded else {"balance": one.balance, "recorded": one.recorded, "tick": one.tick}
        surplus = one.balance > one.recorded
        everybody[one.address] = None if one.purpose == "user" and surplus else wrong
        if one.purpose == "user":
            alone[one.address] = wrong if surplus else None
    return everybody, alone
