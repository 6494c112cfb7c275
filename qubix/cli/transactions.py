"""A wallet's transactions for people: rows, sentences, and following one until it is final."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import typer
from rich.text import Text

from qubix.cli.client import PAGE_LIMIT, ApiError, Client
from qubix.cli.output import ExitCode, Output, ago, amount, bare
from qubix.cli.quantities import duration_s, spoken

PATH: Final = "/api/wallets/transactions"
LOOK_INTERVAL_S: Final = 1.0
UNSEEN_S: Final = 120.0
"""How long a payment that was just sent may stay unseen by the chain before it is no longer waited for."""
CONFIRMATIONS: Final = 3
COLUMNS: Final = ("when", "what", "amount", "balance after", "job or withdrawal", "transaction")

Row = Mapping[str, Any]


def moved(units: int, change: int) -> str:
    """A transaction's amount: signed by what it did to the balance, without a sign where it tells what became of money that had left before."""
    return ("+" if change > 0 else "-" if change < 0 else "") + amount(units)


def cells(row: Row, *, terminal: bool) -> tuple[Any, ...]:
    """A row of the history's table. Args: terminal, a link to click instead of the whole address."""
    return (
        ago(row["created_at"]),
        kind(row),
        moved(row["amount"], row["change"]),
        amount(row["balance"]),
        row["job_id"] or (row["id"] if row.get("cancellable") else None),
        link(row, terminal=terminal),
    )


def kind(row: Row) -> str:
    """`withdrawal (pending) to CELKIKEVOA…`: what it is, how far, and of a withdrawal where it goes."""
    stands = "called off" if called_off(row) else f"{row['status']}{counted(row)}"
    to = row.get("address") if row["type"] == "withdrawal" else None
    return f"{row['type']}{f' ({stands})' if row['status'] != 'completed' else ''}{f' to {bare(to)[:10]}…' if to else ''}"


def called_off(row: Row) -> bool:
    """Whether its owner called this withdrawal off."""
    return row.get("chain_state") == "cancelled"


def counted(row: Row) -> str:
    """`, 1/3` for a payment on the chain."""
    return f", {row['confirmations']}/{CONFIRMATIONS}" if row.get("tx_id") else ""


def link(row: Row, *, terminal: bool) -> Text | str | None:
    """Where the chain's transaction is looked at, None if there is none."""
    url, tx_id = row.get("explorer_url"), row.get("tx_id")
    if not url or not tx_id:
        return None
    return Text(f"{bare(tx_id)[:10]}…", style=f"link {bare(url)}") if terminal else bare(url)


def sentence(row: Row) -> str:
    """How far a movement between chain and wallet is, in one line."""
    subject = f"{row['type']} of {amount(row['amount'])}"
    if row["status"] == "completed":
        return f"{subject}: done, {CONFIRMATIONS}/{CONFIRMATIONS}, in tick {row['tick']}"
    if row["status"] == "failed":
        return f"{subject}: {bare(row['detail']) or 'failed'}"
    if row["status"] == "unknown":
        return f"{subject}: {bare(row['detail']) or 'a person looks at it'}"
    if needs_a_person(row):
        return f"{subject}: {bare(row['detail'])}"
    wait_s = row.get("expected_wait_s")
    how_long = (
        "delayed: the chain does not advance" if row.get("delayed") else f"about {spoken(wait_s)} still" if wait_s else "any moment now"
    )
    seen = f"{row['confirmations']}/{CONFIRMATIONS}" if row.get("tx_id") else "not signed yet"
    if row["type"] == "withdrawal" and row.get("tx_id"):
        seen = f"signed for tick {row['tick']}, {seen}"
    return f"{subject}: {seen}, {how_long}"


def needs_a_person(row: Row) -> bool:
    """Whether nothing goes on before an operator has looked: waiting for it here would not end."""
    return row["status"] == "unknown" or (row["status"] == "pending" and row.get("chain_state") in ("approval", "halted"))


def fetch(client: Client, *, items_max: int, **filters: Any) -> list[Row]:
    """What is on its way, then the history, newest first."""
    given = {name: value for name, value in filters.items() if value}
    page = client.get(PATH, limit=min(PAGE_LIMIT, items_max), **given)
    rows: list[Row] = [*page.get("incoming", []), *page["items"]]
    while len(rows) < items_max and page.get("next_cursor"):
        page = client.get(PATH, limit=min(PAGE_LIMIT, items_max - len(rows)), cursor=page["next_cursor"], **given)
        rows += page["items"]
    return rows[:items_max]


def moment(text: str | None) -> str | None:
    """`7d` or `2h` ago, a date, or an RFC 3339 time, as the latter. Raises: typer.BadParameter."""
    if text is None:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=duration_s(text))).isoformat()
    try:
        return (found if found.tzinfo else found.astimezone()).isoformat()
    except (OverflowError, OSError) as error:
        raise typer.BadParameter(f"{text!r} is no time that can be asked for") from error


class Teller:
    """Says each change of each row once. Args: say, prints a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, tuple[Any, ...]] = {}

    def look(self, row: Row) -> None:
        """See a row as it is now."""
        facts = tuple(row.get(name) for name in ("status", "chain_state", "confirmations", "tx_id", "delayed"))
        if self._told.get(row["id"]) == facts:
            return
        if (row.get("tx_id") and row["id"] not in self._told) or (row.get("tx_id") and self._told[row["id"]][3] != row["tx_id"]):
            self._say(bare(row["explorer_url"]))
        self._told[row["id"]] = facts
        self._say(sentence(row))


def follow(client: Client, entry_id: str, tell: Callable[[Row], None]) -> Row | None:
    """Tell how a transaction goes until it has ended or needs a person; None if the chain has not shown it within UNSEEN_S."""
    waited_s = 0.0
    seen = False
    while True:
        try:
            row: Row = client.get(f"{PATH}/{entry_id}")
            seen = True
            tell(row)
            if row["status"] != "pending" or needs_a_person(row):
                return row
        except ApiError as error:
            if error.status != 404 or seen:
                raise
            if waited_s >= UNSEEN_S:
                return None
        time.sleep(LOOK_INTERVAL_S)
        waited_s += LOOK_INTERVAL_S


def follow_deposits(client: Client, tell: Callable[[Row], None]) -> list[Row]:
    """Tell what comes to the deposit address, from now until something has come and all that came is in the wallet, or a person's affair."""
    page = client.get(PATH, type="deposit", limit=PAGE_LIMIT)
    before = {row["id"] for row in page["items"]}
    mine: dict[str, Row] = {}
    while True:
        shown = {row["id"]: row for row in [*page["items"], *page["incoming"]] if row["id"] not in before}
        for row in reversed(shown.values()):
            tell(row)
        mine.update(shown)
        # What was on its way and is in neither list was withdrawn by the chain itself: nothing of it is waited for.
        if mine and all(row["status"] != "pending" or entry_id not in shown for entry_id, row in mine.items()):
            return list(mine.values())
        time.sleep(LOOK_INTERVAL_S)
        page = client.get(PATH, type="deposit", limit=PAGE_LIMIT)


def code_of(row: Row | None) -> ExitCode:
    """The exit code for where a transaction stands."""
    if row is None or row["status"] in ("pending", "unknown"):
        return ExitCode.NOT_FINISHED
    if called_off(row):
        return ExitCode.CANCELLED
    return ExitCode.DONE if row["status"] == "completed" else ExitCode.FAILED


def teller(out: Output) -> Callable[[Row], None]:
    """Tells on stdout for people; silent with --json."""
    return Teller(lambda line: out.show(Text(line))).look
