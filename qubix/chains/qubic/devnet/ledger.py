"""The network's state and its rules: accounts, pool, ticks. No clock, no HTTP, no file; `step` is the only way forward.

A tick is current when it has executed; the next one's leader has then published already. What the archive knows lags behind.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.wire import Wire

FIRST_TICK: Final = 20_000_000
FIRST_EPOCH: Final = 200
SUPPLY: Final = 100_000_000_000_000
TICK_TRANSACTIONS_MAX: Final = 4096
"""Transactions that one tick takes."""
TICKS_AHEAD_MAX: Final = 1714
"""The pool's window on mainnet: 600 s of 350 ms."""
ARCHIVE_LAG: Final = 3
SEND_MANY_FEE: Final = 10
HISTORY_TICKS: Final = 256
"""How far back a stale node can look."""


@dataclass(frozen=True, slots=True)
class Account:
    """What passed through an address, in whole units and in transfers, and the tick of the latest one each way."""

    incoming: int = 0
    outgoing: int = 0
    incoming_count: int = 0
    outgoing_count: int = 0
    incoming_tick: int = 0
    outgoing_tick: int = 0

    @property
    def balance(self) -> int:
        """Whole units, never negative."""
        return self.incoming - self.outgoing


@dataclass(frozen=True, slots=True)
class Pending:
    """A transaction that waits for its tick; the lowest priority leaves a full tick."""

    wire: Wire
    priority: int


@dataclass(frozen=True, slots=True)
class Interval:
    """Ticks first to last, all executed, of one epoch."""

    epoch: int
    first: int
    last: int


class Log(enum.IntEnum):
    """Kinds of events, numbered as the network does."""

    QU_TRANSFER = 0
    BURNING = 8


@dataclass(frozen=True, slots=True)
class Movement:
    """An event: money that moved from source to destination, or (BURNING) left the world."""

    kind: Log
    source: bytes
    destination: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A transaction in its tick. moved: money flew, and none of it came back."""

    wire: Wire
    moved: bool
    movements: tuple[Movement, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """An executed tick, and all that it changed."""

    number: int
    epoch: int
    timestamp_ms: int
    executed: tuple[Executed, ...]
    changed: Mapping[bytes, Account]


class Fate(enum.Enum):
    """What became of a broadcast transaction. All but the first two are silent drops: the sender hears nothing."""

    POOLED = "pooled"
    KNOWN = "known"
    NO_SENDER = "unknown sender or zero balance"
    TOO_SOON = "the tick's leader has published already"
    TOO_FAR = "beyond the pool's window"
    CROWDED = "its tick is full of higher priorities"


@dataclass
class State:
    """All that lasts. `pool` is by target tick, then by id, in the order of arrival; archived and logged: what the archive has, up to which tick."""

    accounts: dict[bytes, Account]
    intervals: list[Interval]
    burnt: int
    pool: dict[int, dict[str, Pending]]
    archived: int
    logged: int
    lag: int = ARCHIVE_LAG
    log_lag: int = 0


def genesis(faucet: bytes, *, supply: int = SUPPLY, tick: int = FIRST_TICK, epoch: int = FIRST_EPOCH) -> State:
    """A young network: all money at one address, its first tick executed and archived."""
    rich = Account(incoming=supply, incoming_count=1, incoming_tick=tick)
    return State({faucet: rich}, [Interval(epoch, tick, tick)], burnt=0, pool={}, archived=tick, logged=tick)


class Ledger:
    """The rules over a state.

    Args: state, which it owns from now on; tick_transactions_max, how many fit one tick; send_many_fee, in whole units.
    """

    def __init__(self, state: State, *, tick_transactions_max: int = TICK_TRANSACTIONS_MAX, send_many_fee: int = SEND_MANY_FEE) -> None:
        self.state = state
        self.tick_transactions_max = tick_transactions_max
        self.send_many_fee = send_many_fee
        self._before: deque[tuple[int, dict[bytes, Account]]] = deque(maxlen=HISTORY_TICKS)
        self._changed: dict[bytes, Account] = {}
        self._prior: dict[bytes, Account] = {}

    @property
    def tick(self) -> int:
        """The current tick."""
        return self.state.intervals[-1].last

    @property
    def epoch(self) -> int:
        return self.state.intervals[-1].epoch

    @property
    def known_since(self) -> int:
        """The earliest tick whose accounts can still be told."""
        return self.behind(self._before[0][0], 1) if self._before else self.tick

    def account(self, key: bytes, tick: int | None = None) -> Account:
        """An address's account, now or as it was after an earlier tick, `known_since` or later."""
        if tick is not None:
            for number, before in self._before:
                if number > tick and key in before:
                    return before[key]
        return self.state.accounts.get(key, Account())

    def admit(self, transaction: Wire) -> tuple[Fate, str | None]:
        """Offer a well-formed, signed transaction to the pool; its tick is above the current one.

        Returns: its fate, and the id of the one that had to leave for it.
        """
        rivals = self.state.pool.get(transaction.tick, {})
        if transaction.id in rivals:
            return Fate.KNOWN, None
        sender = self.account(transaction.source)
        if sender.balance <= 0:
            return Fate.NO_SENDER, None
        if transaction.tick <= self.tick + 1:
            return Fate.TOO_SOON, None
        if transaction.tick > self.tick + TICKS_AHEAD_MAX:
            return Fate.TOO_FAR, None
        latest = sender.outgoing_tick or sender.incoming_tick
        priority = sender.balance * (transaction.tick - latest + 1)
        evicted = None
        if len(rivals) >= self.tick_transactions_max:
            evicted = min(rivals, key=lambda rival: rivals[rival].priority)
            if rivals[evicted].priority >= priority:
                return Fate.CROWDED, None
            del rivals[evicted]
        self.state.pool.setdefault(transaction.tick, rivals)[transaction.id] = Pending(transaction, priority)
        return Fate.POOLED, evicted

    def knows(self, transaction: Wire) -> bool:
        """Whether it waits in the pool."""
        return transaction.id in self.state.pool.get(transaction.tick, {})

    def step(self, timestamp_ms: int) -> Tick:
        """Execute the next tick."""
        current = self.state.intervals[-1]
        self.state.intervals[-1] = replace(current, last=current.last + 1)
        return self._run(timestamp_ms)

    def skip(self, ticks: int, timestamp_ms: int) -> Tick:
        """Leave out `ticks` ticks, with what was to execute in them, and execute the one after."""
        return self._jump(ticks, self.epoch, timestamp_ms)

    def change_epoch(self, ticks: int, timestamp_ms: int) -> Tick:
        """Begin the next epoch after `ticks` skipped ticks. Nothing pending lives on, whatever its tick."""
        self.state.pool.clear()
        return self._jump(ticks, self.epoch + 1, timestamp_ms)

    def set_lag(self, lag: int, log_lag: int) -> None:
        """Let the archive be `lag` ticks behind and its event logs `log_lag` more. A larger lag halts it, nothing is unlearned."""
        self.state.lag, self.state.log_lag = lag, log_lag
        self._archive()

    def behind(self, tick: int, ticks: int) -> int:
        """The tick that executed `ticks` executed ticks before `tick`, or the first one."""
        for interval in reversed(self.state.intervals):
            if tick < interval.first:
                continue
            end = min(tick, interval.last)
            if ticks <= end - interval.first:
                return end - ticks
            ticks -= end - interval.first + 1
        return self.state.intervals[0].first

    def intervals(self, up_to: int) -> list[Interval]:
        """The executed intervals, up to an executed tick."""
        return [replace(interval, last=min(interval.last, up_to)) for interval in self.state.intervals if interval.first <= up_to]

    def total(self) -> int:
        """All balances and all that was burnt: the supply, for ever."""
        return sum(account.balance for account in self.state.accounts.values()) + self.state.burnt

    def _jump(self, ticks: int, epoch: int, timestamp_ms: int) -> Tick:
        first = self.tick + 1 + ticks
        self.state.intervals.append(Interval(epoch, first, first))
        return self._run(timestamp_ms)

    def _run(self, timestamp_ms: int) -> Tick:
        number = self.tick
        due = self.state.pool.pop(number, {})
        for skipped in [tick for tick in self.state.pool if tick < number]:
            del self.state.pool[skipped]
        self._changed, self._prior = {}, {}
        executed = tuple(self._execute(pending.wire) for pending in due.values())
        self._before.append((number, self._prior))
        self._archive()
        return Tick(number, self.epoch, timestamp_ms, executed, self._changed)

    def _archive(self) -> None:
        self.state.archived = max(self.state.archived, self.behind(self.tick, self.state.lag))
        self.state.logged = max(self.state.logged, self.behind(self.tick, self.state.lag + self.state.log_lag))

    def _execute(self, transaction: Wire) -> Executed:
        source, destination, amount = transaction.source, transaction.destination, transaction.amount
        if amount == 0 or amount > self.account(source).balance:
            return Executed(transaction, moved=False)
        sent = self._transfer(source, destination, amount)
        if destination == identity.NULL or not identity.is_contract(destination):
            return Executed(transaction, moved=True, movements=(sent,))
        asked = wire.payments(transaction)
        if asked is None or sum(part for _, part in asked) + self.send_many_fee != amount:
            return Executed(transaction, moved=False, movements=(sent, self._transfer(destination, source, amount)))
        # QUTIL skips the places of NULL; what they name stays with the contract.
        paid = [self._transfer(destination, payee, part) for payee, part in asked if part and payee != identity.NULL]
        burnt = [self._burn(destination, self.send_many_fee)] if self.send_many_fee else []
        return Executed(transaction, moved=True, movements=(sent, *paid, *burnt))

    def _transfer(self, source: bytes, destination: bytes, amount: int) -> Movement:
        self._pay(source, amount)
        if destination == identity.NULL:
            self.state.burnt += amount
        else:
            payee = self.account(destination)
            self._write(
                destination,
                replace(
                    payee,
                    incoming=payee.incoming + amount,
                    incoming_count=payee.incoming_count + 1,
                    incoming_tick=self.tick,
                ),
            )
        return Movement(Log.QU_TRANSFER, source, destination, amount)

    def _burn(self, source: bytes, amount: int) -> Movement:
        self._pay(source, amount)
        self.state.burnt += amount
        return Movement(Log.BURNING, source, identity.NULL, amount)

    def _pay(self, source: bytes, amount: int) -> None:
        payer = self.account(source)
        self._write(
            source,
            replace(payer, outgoing=payer.outgoing + amount, outgoing_count=payer.outgoing_count + 1, outgoing_tick=self.tick),
        )

    def _write(self, key: bytes, account: Account) -> None:
        self._prior.setdefault(key, self.account(key))
        self.state.accounts[key] = self._changed[key] = account
