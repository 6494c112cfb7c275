"""The network as its doors see it: the ledger's rules, committed to the store before anything is answered, with the faults in between."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.faults import Faults, Kind
from qubix.chains.qubic.devnet.ledger import (
    HISTORY_TICKS,
    SEND_MANY_FEE,
    TICK_TRANSACTIONS_MAX,
    Account,
    Fate,
    Interval,
    Ledger,
    State,
    Tick,
    genesis,
)
from qubix.chains.qubic.devnet.refusal import Code, Refusal, bad
from qubix.chains.qubic.devnet.store import Store
from qubix.chains.qubic.faucet_seed import FAUCET_SEED as FAUCET_SEED

STEPS_MAX: Final = 10_000
"""Ticks that one admin call may execute."""
_LAST_TICK: Final = 2**32 - 1
_FAUCET_AHEAD: Final = 3


@dataclass(frozen=True)
class View:
    """What one request sees: the live tick, and up to which ticks the archive has transactions and event logs. door: "a" or "b"."""

    door: str
    tick: int
    archived: int
    logged: int


@dataclass(frozen=True)
class Receipt:
    """The answer to a broadcast; `fate` is for tests and the admin, the RPC never tells it."""

    id: str
    tick: int
    fate: Fate | None


def milliseconds() -> int:
    """The time of day, since 1970."""
    return time.time_ns() // 1_000_000


class Network:
    """One network on one folder.

    Args: store, opened; faults; now_ms, for the ticks' time stamps; tick_transactions_max, send_many_fee: see `Ledger`.
    """

    def __init__(
        self,
        store: Store,
        faults: Faults | None = None,
        *,
        now_ms: Callable[[], int] = milliseconds,
        tick_transactions_max: int = TICK_TRANSACTIONS_MAX,
        send_many_fee: int = SEND_MANY_FEE,
    ) -> None:
        self.store = store
        self.faults = faults or Faults()
        self._now_ms = now_ms
        self._rules: dict[str, int] = {"tick_transactions_max": tick_transactions_max, "send_many_fee": send_many_fee}
        self._faucet_subseed = keys.subseed_from_seed(FAUCET_SEED)
        self.faucet_key = keys.public_key_from_subseed(self._faucet_subseed)
        state = store.load()
        if state is None:
            state = genesis(self.faucet_key)
            store.write_genesis(state, now_ms())
        self.ledger = Ledger(state, **self._rules)

    @classmethod
    def open(cls, folder: Path, **options: Any) -> Network:
        """The network of a folder, founded if it is new. Raises: Conflict if another process has it open."""
        return cls(Store(folder), **options)

    def close(self) -> None:
        """Let the folder go."""
        self.store.close()

    def view(self, door: str, area: str) -> View:
        """What a request sees that came in through a door: the truth, unless a stale node or archive answers."""
        stale = self.faults.strikes(Kind.STALE, self.ledger.tick, door=door, area="live" if area == "live" else "query")
        state, ticks = self.ledger.state, min(stale.ticks, HISTORY_TICKS) if stale else 0
        live, archived, logged = (self.ledger.behind(tick, ticks) for tick in (self.ledger.tick, state.archived, state.logged))
        return View(door, max(live, self.ledger.known_since), archived, logged)

    def account(self, key: bytes, view: View) -> Account:
        """An account as the view's live node knows it."""
        return self.ledger.account(key, view.tick)

    def intervals(self, view: View) -> list[Interval]:
        """The intervals that the view's archive has."""
        return self.ledger.intervals(view.archived)

    def send_many_fee(self) -> int:
        """What QUTIL asks for a send-many, in whole units."""
        return self.ledger.send_many_fee

    def broadcast(self, encoded: bytes, door: str = "a") -> Receipt:
        """Take a transaction's bytes, as the RPC does.

        Returns: its id; the same for the same bytes however often they come. It says nothing about whether the pool took them.
        Raises: Refusal (3) for bytes that are no transaction, an invalid signature, a target tick that is not above the current one.
        """
        found = wire.read(encoded)
        # Known bytes need no second verification: the id covers all of them, the signature too.
        if not self.ledger.knows(found) and not wire.is_signed(found):
            raise bad("invalid signature")
        if found.tick <= self.ledger.tick:
            raise bad(f"Target tick: {found.tick} for the transaction should be greater than max tick: {self.ledger.tick}")
        if self.faults.strikes(Kind.DROP, self.ledger.tick, door=door, area="broadcast", of=found.id):
            return Receipt(found.id, found.tick, None)
        fate, evicted = self.ledger.admit(found)
        if fate is Fate.POOLED:
            pending = self.ledger.state.pool[found.tick][found.id]
            self._commit(lambda: self.store.write_pooled(pending, evicted))
        return Receipt(found.id, found.tick, fate)

    def step(self, ticks: int = 1) -> int:
        """Execute the next ticks, each its own commit. Returns: the current tick."""
        for _ in range(ticks):
            self._room(1)
            self._write(self.ledger.step(self._now_ms()))
        return self.ledger.tick

    def pulse(self) -> None:
        """Execute the tick that the clock brings, unless the network stands still."""
        if not self.faults.strikes(Kind.HALT, self.ledger.tick, door="a"):
            self.step()

    def skip(self, ticks: int) -> int:
        """Leave out ticks and execute the next one. Returns: the current tick."""
        self._room(ticks + 1)
        self._write(self.ledger.skip(ticks, self._now_ms()))
        return self.ledger.tick

    def change_epoch(self, ticks: int) -> int:
        """Begin the next epoch after skipped ticks; what is pending is lost. Returns: the current tick."""
        self._room(ticks + 1)
        self._write(self.ledger.change_epoch(ticks, self._now_ms()))
        return self.ledger.tick

    def set_lag(self, lag: int, log_lag: int) -> None:
        """See `Ledger.set_lag`."""
        self.ledger.set_lag(lag, log_lag)
        self._commit(lambda: self.store.write_facts(self.ledger.state))

    def fund(self, destination: bytes, amount: int) -> Receipt:
        """Send test money from the faucet: a real, signed transaction, three ticks ahead.

        Raises: Refusal (3) if the faucet has not so much.
        """
        if not 0 < amount <= min(self.ledger.account(self.faucet_key).balance, wire.AMOUNT_MAX):
            raise bad("the faucet has not so much")
        tick = self.ledger.tick + _FAUCET_AHEAD
        # The nonce keeps two equal gifts in one tick apart.
        encoded = wire.signed(self._faucet_subseed, self.faucet_key, destination, amount, tick, b"faucet " + secrets.token_bytes(8))
        found = wire.read(encoded)
        fate, evicted = self.ledger.admit(found)
        if fate is Fate.POOLED:
            pending = self.ledger.state.pool[found.tick][found.id]
            self._commit(lambda: self.store.write_pooled(pending, evicted))
        return Receipt(found.id, tick, fate)

    def status(self) -> Mapping[str, Any]:
        """What an operator of tests wants to see."""
        state = self.ledger.state
        return {
            "tick": self.ledger.tick,
            "epoch": self.ledger.epoch,
            "archived": state.archived,
            "logged": state.logged,
            "lag": state.lag,
            "log_lag": state.log_lag,
            "pending": sum(map(len, state.pool.values())),
            "accounts": len(state.accounts),
            "burnt": str(state.burnt),
            "supply": str(self.ledger.total()),
            "faucet": identity.encode(self.faucet_key),
            "faults": [fault.kind.value for fault in self.faults.armed],
        }

    def _room(self, ticks: int) -> None:
        if self.ledger.tick + ticks > _LAST_TICK:
            raise bad("ticks end at 2³²")

    def _write(self, tick: Tick) -> None:
        self._commit(lambda: self.store.write_tick(self.ledger.state, tick))

    def _commit(self, write: Callable[[], None]) -> None:
        """Write, or forget what was not written: memory never says more than the file.

        Raises: Refusal (13) if it cannot be written.
        """
        try:
            write()
        except sqlite3.Error as error:
            state: State | None = self.store.load()
            if state is None:
                raise
            self.ledger = Ledger(state, **self._rules)
            raise Refusal(Code.INTERNAL, f"the devnet cannot write its file: {error}") from error
