"""The treasury: one process that watches the chain, credits what comes in, sends what is signed. `python -m qubix.treasurer`

It holds no key. What it knows is in the database, every step is one transaction that begins by proving leadership, no network call is made
inside one, and it may be killed at any moment. Its loops: the chain (look, scan, judge again, peek), payments, reconciliation,
and after a restore the payments that it lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from qubix import observability
from qubix.bootstrap import Resources, open_resources, scope
from qubix.exporter import Loops, exported, make_registry
from qubix.kernel.errors import Conflict, Invalid, QubixError
from qubix.postgres import leader
from qubix.postgres.leader import NotLeader
from qubix.postgres.leading import AWAY, FAILURE_PAUSE_S, side_by_side, until_told
from qubix.postgres.measures import PoolCollector
from qubix.settings import Settings
from qubix.treasury.books import Books
from qubix.treasury.deciding import Patience, Payer
from qubix.treasury.lost import LostPayments
from qubix.treasury.lost_store import LostStore
from qubix.treasury.reconciling import Reconciler
from qubix.treasury.sending import Rules
from qubix.treasury.store import TreasuryStore
from qubix.treasury.watch_store import WAITED_FOR_S, WatchStore
from qubix.treasury.watching import TICKS_AT_ONCE, Pauses, Watcher
from qubix.treasury.witnesses import Witnesses

NAME: Final = "treasury"
LOOK_S: Final = 1.5
"""Between two looks at the chain."""
PAYMENTS_S: Final = 1.0
RECONCILE_S: Final = 5.0
RECOVER_S: Final = 2.0
BALANCES_S: Final = 30.0
"""Between two rounds of balances."""
DOUBTED_S: Final = 10.0
"""The same while an address stops payouts because its figures do not agree."""
BEAT_S: Final = 1.0

log = observability.logger("treasury")


class Treasurer:
    """The loops over one process's resources.

    Args: holder, who this is, for the leader row; rules, patience and pauses, how much proof is enough and how often it is asked for.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        holder: str = "",
        rules: Rules | None = None,
        patience: Patience | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._resources = resources
        self._holder = holder or f"{socket.gethostname()}/{os.getpid()}"
        self._epoch = 0
        self.registry = make_registry()
        self.registry.register(PoolCollector(resources.engine))
        self._loops = Loops(self.registry)
        witnesses = Witnesses(resources.qubic)
        self.watcher = Watcher(witnesses, self.books, clock=resources.clock, pauses=pauses)
        self.payer = Payer(witnesses, self.books, clock=resources.clock, rules=rules, patience=patience)
        self.lost = LostPayments(witnesses, self.books, clock=resources.clock, rules=rules, pauses=pauses)
        self.reconciler = Reconciler(witnesses, self.books)
        self._balances_due = 0.0

    async def lead(self) -> int:
        """Become the leader, of a ledger that knows a chain. Returns the epoch.

        Raises: Invalid where the ledger is of another network than the settings name, or of none.
        """
        async with scope(self._resources) as s:
            network = await WatchStore(s.connection).network()
            if network is None:
                raise Conflict("the ledger has no network yet", next_step="run `qubix migrate` first")
            if network != self._resources.settings.network or network == "none":
                raise Invalid(
                    f"this ledger's network is {network}, the configured one {self._resources.settings.network}",
                    next_step="the treasury works on devnet and mainnet; set QUBIX_NETWORK to what the ledger was born on",
                )
            self._epoch = await leader.take(s.connection, NAME, self._holder)
        log.info("leading", epoch=self._epoch, network=network)
        return self._epoch

    @asynccontextmanager
    async def books(self) -> AsyncIterator[Books]:
        """One transaction while this process leads. Raises: NotLeader."""
        async with scope(self._resources, leads=(NAME, self._epoch)) as s:
            yield Books(WatchStore(s.connection), TreasuryStore(s.connection), LostStore(s.connection), s.outbox.add, s.wake)

    async def run(self) -> None:
        """Lead and work until cancelled, or until another leads. Raises: NotLeader, Invalid."""
        while True:
            try:
                await self.lead()
                break
            except (*AWAY, Conflict) as error:
                log.warning("the database is away or not ready", error=str(error)[:300])
                await asyncio.sleep(FAILURE_PAUSE_S)
        loops = [
            self._every(BEAT_S, self._beat),
            self._every(LOOK_S, self.watch),
            self._woken("payments", self.pay, idle_s=PAYMENTS_S),
            self._woken("deposits", self._expect, idle_s=WAITED_FOR_S),
            self._every(RECONCILE_S, self.reconcile),
            self._every(RECOVER_S, self.recover),
        ]
        await side_by_side(loops)

    async def watch(self) -> None:
        """Where the chain is, what came in; at once again while there is much to catch up with."""
        behind = True
        while behind:
            await self.watcher.look()
            behind = await self.watcher.scan() >= TICKS_AT_ONCE
            await self.watcher.rejudge()
        await self.watcher.peek()

    async def pay(self) -> None:
        """Send what is signed, decide what is final."""
        await self.payer.step()

    async def recover(self) -> None:
        """After a restore, find out what became of payments that the backup did not know."""
        await self.lost.step()

    async def reconcile(self) -> None:
        """Ask for balances now and then, and judge them when the cursor has passed them."""
        now = self._resources.clock.monotonic()
        if self.reconciler.is_idle and now >= self._balances_due:
            self._balances_due = now + BALANCES_S
            if await self.reconciler.ask():
                self._balances_due = now + DOUBTED_S
        for tick in await self.reconciler.judge():
            await self.watcher.read_again(tick)

    async def _expect(self) -> None:
        self.watcher.expect(WAITED_FOR_S)

    async def _beat(self) -> None:
        async with scope(self._resources) as s:
            await leader.beat(s.connection, NAME, self._epoch)

    async def _woken(self, channel: str, act: Callable[[], Awaitable[None]], *, idle_s: float) -> None:
        """Run `act` at each wake; and every `idle_s` without one, unless only wakes mean something."""
        async with self._resources.listen(channel, idle_s=idle_s) as listener:
            async for heard in listener:
                if heard or channel != "deposits":
                    await self._tried(act)

    async def _every(self, pause_s: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._tried(act)
            await asyncio.sleep(pause_s)

    async def _tried(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run a step; trouble of the database or the network delays it and never ends the loop."""
        try:
            with self._loops.step(act.__name__.lstrip("_")):
                await act()
        except NotLeader:
            raise
        except (*AWAY, asyncpg.PostgresError) as error:
            log.warning("step failed; tried again", step=act.__name__, error=str(error)[:500])
            await asyncio.sleep(FAILURE_PAUSE_S)
        except QubixError as error:
            log.warning("step refused; tried again", step=act.__name__, code=error.code, error=error.message)
            await asyncio.sleep(FAILURE_PAUSE_S)


async def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 stopped, 2 wrongly configured, 3 another leads."""
    resources = open_resources(settings)
    try:
        treasurer = Treasurer(resources)
        with exported(settings, treasurer.registry, NAME):
            return await until_told(treasurer.run(), resources.close, log=log)
    except Invalid as error:
        log.error("cannot start", reason=error.message, next_step=error.next_step)
        return 2


def main() -> int:
    """Entry point."""
    settings = Settings()
    observability.configure(level=settings.log_level)
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    raise SystemExit(main())
