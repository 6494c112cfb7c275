"""What survives a restart, in SQLite.

One file, one writer, and exactly one transaction per tick and per accepted broadcast, committed before anything is answered: killed at any
moment, the network goes on from the last thing that it said. SQLite comes with Python, needs no server, and its write-ahead log makes
a commit atomic against the death of the process. synchronous=NORMAL leaves out the flush per commit: after a power cut of the machine the
newest ticks may be missing, which a network of test money can bear; the file is whole even then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.ledger import Account, Executed, Interval, Pending, State, Tick
from qubix.chains.qubic.devnet.wire import Wire
from qubix.kernel.errors import Conflict

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    key BLOB PRIMARY KEY, incoming INTEGER NOT NULL, outgoing INTEGER NOT NULL, incoming_count INTEGER NOT NULL,
    outgoing_count INTEGER NOT NULL, incoming_tick INTEGER NOT NULL, outgoing_tick INTEGER NOT NULL, CHECK (incoming >= outgoing)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pool (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tick INTEGER NOT NULL, priority TEXT NOT NULL, encoded BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS intervals (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ticks (number INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, timestamp INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    tick INTEGER NOT NULL, place INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL, destination TEXT NOT NULL,
    amount INTEGER NOT NULL, input_type INTEGER NOT NULL, timestamp INTEGER NOT NULL, moved INTEGER NOT NULL, encoded BLOB NOT NULL,
    PRIMARY KEY (tick, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transactions_source ON transactions (source, tick);
CREATE INDEX IF NOT EXISTS transactions_destination ON transactions (destination, tick);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, tick INTEGER NOT NULL, epoch INTEGER NOT NULL, timestamp INTEGER NOT NULL, transaction_id TEXT NOT NULL,
    kind INTEGER NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL, amount INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_transaction ON events (transaction_id);
CREATE INDEX IF NOT EXISTS events_tick ON events (tick);
"""
_FACTS: Final = ("burnt", "archived", "logged", "lag", "log_lag")

Row = sqlite3.Row


class Store:
    """The file `devnet.sqlite` in a folder, which this process alone has open.

    Raises: Conflict if another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._connection = sqlite3.connect(folder / "devnet.sqlite", isolation_level=None, timeout=0.1)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise Conflict(f"the devnet's file cannot be opened: {error}", next_step="is another devnet running on this folder?") from error

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def load(self) -> State | None:
        """The state as it was committed last; None in a new folder."""
        facts = {row["name"]: row["value"] for row in self.rows("SELECT * FROM facts")}
        if not facts:
            return None
        accounts = {row["key"]: Account(*tuple(row)[1:]) for row in self.rows("SELECT * FROM accounts")}
        intervals = [Interval(row["epoch"], row["first"], row["last"]) for row in self.rows("SELECT * FROM intervals ORDER BY first")]
        pool: dict[int, dict[str, Pending]] = {}
        for row in self.rows("SELECT * FROM pool ORDER BY position"):
            pool.setdefault(row["tick"], {})[row["id"]] = Pending(wire.read(row["encoded"]), int(row["priority"]))
        return State(accounts, intervals, pool=pool, **{name: facts[name] for name in _FACTS})

    def write_genesis(self, state: State, timestamp_ms: int) -> None:
        """The first commit."""
        first = state.intervals[0]
        self._write(state, Tick(first.last, first.epoch, timestamp_ms, (), state.accounts))

    def write_tick(self, state: State, tick: Tick) -> None:
        """Commit a tick: what executed, what it changed, and that nothing waits any more for it or for skipped ones."""
        self._write(state, tick)

    def write_pooled(self, pending: Pending, evicted: str | None) -> None:
        """Commit an accepted broadcast."""
        with self._transaction():
            if evicted is not None:
                self._connection.execute("DELETE FROM pool WHERE id = ?", (evicted,))
            row = (pending.wire.id, pending.wire.tick, str(pending.priority), pending.wire.encoded)
            self._connection.execute("INSERT INTO pool (id, tick, priority, encoded) VALUES (?, ?, ?, ?)", row)

    def write_facts(self, state: State) -> None:
        """Commit the archive's lag."""
        with self._transaction():
            self._put_facts(state)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Read."""
        return self._connection.execute(statement, values).fetchall()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)

    def _write(self, state: State, tick: Tick) -> None:
        interval = state.intervals[-1]
        with self._transaction():
            self._connection.execute("INSERT INTO ticks VALUES (?, ?, ?)", (tick.number, tick.epoch, tick.timestamp_ms))
            self._connection.execute("INSERT OR REPLACE INTO intervals VALUES (?, ?, ?)", (interval.first, interval.last, interval.epoch))
            self._connection.executemany("INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _transaction_rows(tick))
            self._connection.executemany(
                "INSERT INTO events (tick, epoch, timestamp, transaction_id, kind, source, destination, amount)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                _event_rows(tick),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((key, *_account_row(account)) for key, account in tick.changed.items()),
            )
            if state.pool:
                self._connection.execute("DELETE FROM pool WHERE tick <= ?", (tick.number,))
            else:
                self._connection.execute("DELETE FROM pool")
            self._put_facts(state)

    def _put_facts(self, state: State) -> None:
        facts = [(name, getattr(state, name)) for name in _FACTS]
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)


class _Transaction:
    """BEGIN IMMEDIATE, then COMMIT, or ROLLBACK after an exception."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _account_row(account: Account) -> tuple[int, ...]:
    return (
        account.incoming,
        account.outgoing,
        account.incoming_count,
        account.outgoing_count,
        account.incoming_tick,
        account.outgoing_tick,
    )


def _transaction_rows(tick: Tick) -> Iterable[tuple[Any, ...]]:
    for place, executed in enumerate(tick.executed):
        found: Wire = executed.wire
        ends = (identity.encode(found.source), identity.encode(found.destination))
        yield tick.number, place, found.id, *ends, found.amount, found.input_type, tick.timestamp_ms, executed.moved, found.encoded


def _event_rows(tick: Tick) -> Iterable[tuple[Any, ...]]:
    executed: Executed
    for executed in tick.executed:
        for movement in executed.movements:
            ends = (identity.encode(movement.source), identity.encode(movement.destination))
            yield tick.number, tick.epoch, tick.timestamp_ms, executed.wire.id, int(movement.kind), *ends, movement.amount
