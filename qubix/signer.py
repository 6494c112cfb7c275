"""The signer: the one process that holds keys. `python -m qubix.signer`, or `qubix signer` in the foreground

It makes addresses, and signs payouts of open holds and sweeps of deposit addresses to the paying one. It stores the signed bytes and
sends nothing: the treasury process broadcasts what is stored, again and again the same bytes. So the bytes are in the database before
anybody can send them, the process with the keys never calls what moves money, and a signer that is killed anywhere has signed either nothing or
exactly what is stored.

One signs at a time, by the leader row; the database refuses a second payment for a hold or from an address all the same. Every question to
the network is asked outside of transactions.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from qubix import observability
from qubix.bootstrap import Resources, Scope, open_resources, scope
from qubix.chains.qubic.answers import Balance, TickInfo
from qubix.chains.qubic.rpc import PUBLIC
from qubix.exporter import Loops, exported, make_registry
from qubix.kernel.errors import Invalid, QubixError, Unavailable
from qubix.kernel.failpoints import reach
from qubix.kernel.ids import new_id
from qubix.ledger.model import Code, WrongNetwork
from qubix.postgres import leader
from qubix.postgres.leader import NotLeader
from qubix.postgres.leading import AWAY, FAILURE_PAUSE_S, until_told
from qubix.postgres.measures import PoolCollector
from qubix.settings import Settings
from qubix.treasury import sending
from qubix.treasury.seeds import SealedSeed, Sealer, read_key_file
from qubix.treasury.sending import EpochWatch, Hold
from qubix.treasury.signing import Candidate, Choice, SignedPayment, Wallet, agreed, agreed_head, choose, sign_choice, sign_sweep, unpayable
from qubix.treasury.signing_store import SigningStore, Source

NAME: Final = "signer"
CHANNEL: Final = "payouts"
"""What wakes it: a withdrawal was asked for or approved, a payment has ended."""
IDLE_S: Final = 1.0
PART_MAX_S: Final = 120.0
FREE_MIN: Final = 20
"""Addresses that wait for users: never fewer for long."""
FREE_MAX: Final = 40
ADDRESSES_AT_ONCE: Final = 20
CANDIDATES_MAX: Final = 100
SWEEPS_AT_ONCE: Final = 10
SWEEP_SHARE: Final = 20
"""What to sweep is looked up at most this part of the time, however many rows there are."""
REST_S: Final = 30.0
"""How long an address that could not be swept is left alone."""

log = observability.logger("signer")


class Signer:
    """The rounds over one process's resources. Args: holder, who this is, for the leader row."""

    def __init__(self, resources: Resources, sealer: Sealer, *, holder: str = "") -> None:
        self._resources = resources
        self._sealer = sealer
        self._holder = holder or f"{socket.gethostname()}/{os.getpid()}"
        self._epoch = 0
        self.registry = make_registry()
        self.registry.register(PoolCollector(resources.engine))
        self._loops = Loops(self.registry)
        self._left_to_a_person: set[UUID] = set()
        self._resting: dict[str, float] = {}
        self._sweeps_due = 0.0
        self._waits: dict[str, str] = {}

    async def start(self) -> None:
        """Lead, and see that network and key file are the ones this database is meant for.

        Raises: WrongNetwork; SeedNotOpened under another key than before.
        """
        async with scope(self._resources) as s:
            self._epoch = await leader.take(s.connection, NAME, self._holder)
        async with self._store() as store:
            born, known = await store.network(), await store.any_seed()
        check_network(self._resources.settings, born)
        if known is not None:
            self._sealer.subseed(known)
        log.info("leading", epoch=self._epoch, network=born)

    async def run(self) -> None:
        """Lead and work until cancelled, or until another leads. Raises: NotLeader; what `start` raises."""
        while True:
            try:
                await self.start()
                break
            except AWAY as error:
                log.warning("the database is away", error=str(error)[:300])
                await asyncio.sleep(FAILURE_PAUSE_S)
        async with self._resources.listen(CHANNEL, idle_s=IDLE_S) as listener:
            await self.round()
            async for _ in listener:
                await self.round()

    async def round(self) -> None:
        """Each part once. One that fails, or takes too long, is told and tried again next time; the others still run."""
        for part in (self.beat, self.keep_addresses, self.pay, self.sweep):
            try:
                with self._loops.step(part.__name__):
                    async with asyncio.timeout(PART_MAX_S):
                        await part()
            except NotLeader:
                raise
            except Unavailable as error:
                log.warning("the network gives no answer; tried again", part=part.__name__, code=error.code, error=error.message)
            except QubixError as error:
                log.error("refused; tried again", part=part.__name__, code=error.code, error=error.message)
                await asyncio.sleep(FAILURE_PAUSE_S)
            except AWAY as error:
                log.warning("failed; tried again", part=part.__name__, error=f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(FAILURE_PAUSE_S)
            except Exception as error:
                log.error("failed; tried again", part=part.__name__, error=type(error).__name__)  # its text might hold what nobody may read
                await asyncio.sleep(FAILURE_PAUSE_S)

    async def beat(self) -> None:
        """Show that a signer works."""
        async with self._scope() as s:
            await leader.beat(s.connection, NAME, self._epoch)

    # -- addresses --

    async def keep_addresses(self) -> int:
        """The paying address, the house's, and free ones for users. Returns how many were made."""
        async with self._store() as store:
            purposes, free = await store.lacking()
        if free < FREE_MIN:
            purposes += ["user"] * min(FREE_MAX - free, ADDRESSES_AT_ONCE)
        for purpose in purposes:
            made = await asyncio.to_thread(self._sealer.make)
            async with self._store() as store:
                await store.add_address(made, purpose)
            if purpose != "user":
                log.info("address made", purpose=purpose, address=made.identity)
        return len(purposes)

    # -- payouts --

    async def pay(self) -> SignedPayment | None:
        """Sign the next payout, if one can go. Returns what was stored."""
        async with self._store() as store:
            hot = await store.hot()
            if hot is None or hot.busy:
                return None
            found = await store.candidates(without=self._left_to_a_person, most=CANDIDATES_MAX)
            ceilings, house, epoch = await store.ceilings(), await store.house(), await store.epoch()
        candidates = [one for one in found if self._can_be_paid(one)]
        if not candidates:
            self._say("payout", "")
            return None
        wallet = await self._wallet(hot.seed, hot.settled_tick)
        if isinstance(wallet, Hold):
            self._say("payout", wallet.reason)
            return None
        fee = await self._send_many_fee() if len(candidates) > 1 and house > 0 else None
        choice = choose(candidates, ceilings, balance=wallet.balance, fee=fee, house=house)
        if choice is None:
            self._say("payout", f"the paying address has {wallet.balance}: not enough yet for any of {len(candidates)} withdrawals")
            return None
        tick = await self._tick("payout", epoch)
        if tick is None:
            return None
        return await self._sign_payout(choice, hot.seed, wallet, tick)

    async def _sign_payout(self, choice: Choice, seed: SealedSeed, wallet: Wallet, tick: int) -> SignedPayment | None:
        signed = sign_choice(choice, seed.identity, self._sealer.subseed(seed), tick)
        reach("signer.before_store")
        stored = await self._stored("payout", signed, lambda store: store.sign_payout(new_id(), signed, wallet.counters))
        return signed if stored else None

    def _can_be_paid(self, one: Candidate) -> bool:
        why = unpayable(one)
        if why is not None:
            self._left_to_a_person.add(one.hold_id)
            log.error("a withdrawal is left to a person", hold=str(one.hold_id), amount=one.amount, address=one.address[:80], reason=why)
        return why is None

    async def _send_many_fee(self) -> int | None:
        """What the endpoints agree that a send-many costs; None if they do not, or do not say: without it payouts go one by one."""
        rpc = self._resources.qubic
        answers = await asyncio.gather(*(rpc.pinned(base).send_many_fee() for base in rpc.endpoints), return_exceptions=True)
        fees = {answer for answer in answers if not isinstance(answer, BaseException)}
        return fees.pop() if len(fees) == 1 else None

    # -- sweeps --

    async def sweep(self) -> int:
        """Sign for what deposit addresses have, to the paying one. Returns how many were stored."""
        began = time.monotonic()
        if began < self._sweeps_due:
            return 0
        self._resting = {address: until for address, until in self._resting.items() if until > began}
        async with self._store() as store:
            hot, epoch = await store.hot(), await store.epoch()
            sources = await store.sweepable(least=self._resources.settings.sweep_min, without=self._resting, most=SWEEPS_AT_ONCE)
        self._sweeps_due = began + SWEEP_SHARE * (time.monotonic() - began)
        if hot is None or not sources:
            self._say("sweep", "")
            return 0
        wallets = await asyncio.gather(*(self._wallet(source.seed, source.settled_tick) for source in sources))
        tick = await self._tick("sweep", epoch)
        if tick is None:
            return 0
        return sum([await self._sweep(*pair, hot.seed.identity, tick) for pair in zip(sources, wallets, strict=True)])

    async def _sweep(self, source: Source, wallet: Wallet | Hold, hot: str, tick: int) -> bool:
        address = source.seed.identity
        amount = min(source.recorded, wallet.balance) if isinstance(wallet, Wallet) else 0
        if isinstance(wallet, Hold) or amount < self._resources.settings.sweep_min:
            self._resting[address] = time.monotonic() + REST_S
            why = wallet.reason if isinstance(wallet, Hold) else f"it has {wallet.balance} on chain"
            log.warning("not swept yet", address=address, recorded=source.recorded, reason=why)
            return False
        signed = sign_sweep(address, hot, amount, self._sealer.subseed(source.seed), tick)
        reach("signer.before_store")
        return await self._stored("sweep", signed, lambda store: store.sign_sweep(new_id(), signed, wallet.counters))

    # -- both --

    async def _wallet(self, seed: SealedSeed, settled_tick: int) -> Wallet | Hold:
        """What an address has and ever sent, as the endpoints agree, each asked alone and now."""
        rpc = self._resources.qubic
        asked = (rpc.pinned(base).balance(seed.identity, max_age_s=0) for base in rpc.endpoints)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        good = [answer for answer in answers if isinstance(answer, Balance)]
        return agreed(good, settled_tick=settled_tick, endpoints=len(rpc.endpoints))

    async def _tick(self, what: str, epoch: EpochWatch | None) -> int | None:
        """The tick to sign for now; None: not now, as was said."""
        rpc = self._resources.qubic
        answers = await asyncio.gather(*(rpc.pinned(base).tick_info() for base in rpc.endpoints), return_exceptions=True)
        head = agreed_head([answer for answer in answers if isinstance(answer, TickInfo)], endpoints=len(rpc.endpoints))
        weekly = self._resources.settings.network == "mainnet"
        planned = head if isinstance(head, Hold) else sending.plan(head, self._resources.clock.now(), epoch, weekly=weekly)
        self._say(what, planned.reason if isinstance(planned, Hold) else "")
        return None if isinstance(planned, Hold) else planned.tick

    async def _stored(self, kind: str, signed: SignedPayment, act: Callable[[SigningStore], Awaitable[Code]]) -> bool:
        """Store a signed payment in a transaction of its own. Returns whether it is stored; a refusal means that something changed."""
        try:
            async with self._scope() as s:
                code = await act(SigningStore(s.connection))
                s.wake("payments")
        except (sa.exc.IntegrityError, asyncpg.IntegrityConstraintViolationError) as error:
            log.warning("not stored: another payment is there", kind=kind, tx=signed.tx_id, error=type(error).__name__)
            return False
        if code < 0:
            log.warning("not stored: refused by the database", kind=kind, tx=signed.tx_id, code=code.name)
            return False
        reach("signer.stored")
        transaction = signed.transaction
        log.info(
            "chain transaction",
            tx=signed.tx_id,
            tick=transaction.tick,
            kind=kind,
            amount=transaction.amount,
            address=signed.destination,
            source=signed.source,
            state="signed",
            holds=[str(hold) for hold in signed.holds],
        )
        return True

    def _say(self, what: str, reason: str) -> None:
        """Log why something waits, when that changes."""
        if self._waits.get(what, "") != reason:
            self._waits[what] = reason
            if reason:
                log.info("waiting", what=what, reason=reason)

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[SigningStore]:
        async with self._scope() as s:
            yield SigningStore(s.connection)

    @asynccontextmanager
    async def _scope(self) -> AsyncIterator[Scope]:
        async with scope(self._resources, leads=(NAME, self._epoch)) as s:
            yield s


def check_network(settings: Settings, born: str | None) -> None:
    """See that this database's chain is the one that is configured. Raises: WrongNetwork."""
    if born in (None, "none"):
        raise WrongNetwork("this database knows no chain: there is nothing to sign", next_step="use a database born on devnet or mainnet")
    if settings.network != born:
        next_step = f"set QUBIX_NETWORK={born}, and QUBIX_QUBIC_RPC_URLS to endpoints of that network"
        raise WrongNetwork(f"this database was born on {born}, and {settings.network} is configured", next_step=next_step)
    if born == "devnet" and any(url.rstrip("/") == PUBLIC for url in settings.qubic_rpc_urls):
        raise WrongNetwork(f"{PUBLIC} is the real network, and this database holds test money", next_step="set QUBIX_QUBIC_RPC_URLS")


def open_sealer(settings: Settings) -> Sealer:
    """The sealer of the configured key file. Raises: Invalid if none is configured; KeyFileRefused."""
    if settings.signer_key_file is None:
        raise Invalid("no key file is named", next_step="set QUBIX_SIGNER_KEY_FILE; qubix signer --make-key makes one")
    return read_key_file(settings.signer_key_file)


async def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 stopped, 3 another leads. Raises: what cannot be worked with (Invalid, Conflict)."""
    sealer = open_sealer(settings)
    resources = open_resources(settings, pool_size=3)
    signer = Signer(resources, sealer)
    with exported(settings, signer.registry, NAME):
        return await until_told(signer.run(), resources.close, log=log)


def main() -> int:
    """Entry point."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the key
    settings = Settings()
    observability.configure(level=settings.log_level)
    try:
        return asyncio.run(serve(settings))
    except QubixError as error:
        log.error("not started", code=error.code, error=error.message, next_step=error.next_step)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
