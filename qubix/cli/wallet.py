"""Money of this account: `qubix wallet`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from qubix.cli import transactions
from qubix.cli.client import connect
from qubix.cli.output import ExitCode, JsonFlag, Output, YesFlag, amount, bare, plain, table
from qubix.cli.quantities import spoken
from qubix.cli.transactions import COLUMNS, cells, code_of, follow, follow_deposits, moment, teller
from qubix.kernel.money import written
from qubix.ledger.model import ANALYTICS_DAYS_MAX, EntryStatus, EntryType
from qubix.treasury.sending import payee

app = typer.Typer(help="Balance, history, deposits and withdrawals, test funds.", invoke_without_command=True)
FollowFlag = Annotated[bool, typer.Option("--follow/--no-follow", help="Stay until it is final; Ctrl-C leaves it to go on.")]
T = TypeVar("T")


def register(parent: typer.Typer) -> None:
    """Add this noun's commands."""
    parent.add_typer(app, name="wallet", rich_help_panel="Account")


@app.callback()
def balance(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the balance, what is on its way, what escrows hold, and pending earnings."""
    if context.invoked_subcommand is not None:
        return
    out = Output(as_json)
    with connect() as client:
        wallet = client.get("/api/wallets/balance")
    columns = {
        "available": "available",
        "incoming": "on the way",
        "held": "in withdrawals",
        "in_escrow": "in escrow",
        "pending_earnings": "pending earnings",
        "earned": "earned",
        "spent": "spent",
    }
    rows = [(item["asset"], *(amount(item.get(name), item["asset"]) for name in columns)) for item in wallet["wallets"]]
    out.show(table("Wallet", ("asset", *columns.values()), rows, right=columns.values()))
    ways_in = {"none": "qubix wallet faucet 1000000", "devnet": "qubix wallet faucet 1000000"}
    out.finish(wallet, then=("qubix wallet history", ways_in.get(wallet.get("network", "none"), "qubix wallet deposit"), "qubix offers"))


@app.command()
def address(as_json: JsonFlag = False) -> None:
    """Print the deposit address: what is paid to it comes into this wallet."""
    out = Output(as_json)
    with connect() as client:
        found = client.post("/api/wallets/deposit")
    out.show(Text(bare(found["address"])))
    out.finish(found, then=("qubix wallet deposit", "qubix wallet"))


@app.command()
def deposit(follow_it: FollowFlag = True, as_json: JsonFlag = False) -> None:
    """Show where to pay, then tell what comes, 0/3 … 3/3, until it is in the wallet."""
    out = Output(as_json)
    with connect() as client:
        found = client.post("/api/wallets/deposit")
        out.show(f"pay to {bare(found['address'])}", Text(bare(found["explorer_url"])))
        wait_s = found["expected_wait_s"]
        how_long = "the chain does not advance now" if found["delayed"] else f"about {spoken(wait_s)} after it is sent"
        out.show(Text(f"no memo is needed; it counts after {found['confirmations']} confirmations, {how_long}"))
        for note in found["notes"]:
            out.note(plain(note))
        rows: list[Any] = list(found["incoming"])
        if follow_it:
            out.note("waiting for what comes (Ctrl-C ends the waiting, nothing else)")
            rows = _until_left(lambda: follow_deposits(client, teller(out))) or rows
    worst = next((row for row in rows if row["status"] != "completed"), None)
    code = code_of(worst if worst is not None or not rows else rows[0]) if follow_it else ExitCode.DONE
    out.finish({**found, "transactions": rows}, then=("qubix wallet", "qubix wallet history --type deposit"), code=code)


@app.command()
def withdraw(
    units: Annotated[int, typer.Argument(metavar="AMOUNT", min=1, help="Whole units.")],
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="The Qubic identity that is paid, 60 letters.")],
    follow_it: FollowFlag = True,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Pay out to a Qubic identity; what is on the chain cannot be called back."""
    out = Output(as_json)
    payee(to)
    out.confirm(f"Pay {written(units)} to {to}? What is on the chain cannot be called back.", yes)
    with connect() as client:
        row = client.post("/api/wallets/withdraw", {"amount": units, "address": to})
        tell = teller(out)
        tell(row)
        if follow_it:
            row = _until_left(lambda: follow(client, row["id"], tell)) or client.get(f"{transactions.PATH}/{row['id']}")
    then = ["qubix wallet", "qubix wallet history --type withdrawal"]
    if row["cancellable"]:
        then.append(f"qubix wallet cancel {row['id']}")
    out.finish(row, then=then, code=code_of(row) if follow_it else ExitCode.DONE)


@app.command()
def cancel(
    withdrawal_id: Annotated[str, typer.Argument(help="The withdrawal's id.")], yes: YesFlag = False, as_json: JsonFlag = False
) -> None:
    """Call a withdrawal off, as long as nothing is signed for it."""
    out = Output(as_json)
    out.confirm(f"Call withdrawal {withdrawal_id} off?", yes)
    with connect() as client:
        row = client.delete(f"/api/wallets/withdrawals/{withdrawal_id}")
    out.show(Text(transactions.sentence(row)))
    out.finish(row, then=("qubix wallet", "qubix wallet history --type withdrawal"))


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    since: Annotated[str | None, typer.Option(help="From then on: 2026-11-01, an RFC 3339 time, or 7d for seven days ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Before then; written as --since.")] = None,
    kind: Annotated[list[EntryType] | None, typer.Option("--type", help="Only these types; repeatable.")] = None,
    status: Annotated[list[EntryStatus] | None, typer.Option(help="Only these statuses; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what moved and what is on its way, newest first, with links to the chain."""
    out = Output(as_json)
    with connect() as client:
        items = transactions.fetch(
            client,
            items_max=limit,
            since=moment(since),
            until=moment(until),
            type=[item.value for item in kind or ()],
            status=[item.value for item in status or ()],
        )
    if not items:
        filtered = since or until or kind or status
        out.show("no transaction is like that" if filtered else "nothing has moved in this wallet yet")
        out.finish({"items": []}, then=("qubix wallet history",) if filtered else ("qubix wallet faucet 1000000", "qubix provider join"))
        return
    rows = [cells(item, terminal=out.terminal.is_terminal) for item in items]
    out.show(table("History", COLUMNS, rows, right=("amount", "balance after")))
    jobs = [item["job_id"] for item in items if item["job_id"]]
    then = ["qubix wallet", f"qubix show {jobs[0]}" if jobs else "qubix jobs"]
    then += [f"qubix wallet cancel {item['id']}" for item in items if item.get("cancellable")][:1]
    out.finish({"items": items}, then=then)


@app.command()
def analytics(
    days: Annotated[int, typer.Option(min=1, max=ANALYTICS_DAYS_MAX, help="How many, today the last (UTC).")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Sum what came and went, by day and in all."""
    out = Output(as_json)
    with connect() as client:
        found = client.get("/api/wallets/analytics", days=days)
    columns = ("deposited", "withdrawn", "locked", "spent", "refunded", "earned", "fees")
    busy = [day for day in found["days"] if day["transactions"]]
    rows = [(day["date"], *(amount(day[name]) for name in columns)) for day in busy]
    rows.append((f"{days} days", *(amount(found["total"][name]) for name in columns)))
    out.show(table("Analytics", ("day", *columns), rows, right=columns))
    out.finish(found, then=("qubix wallet history", "qubix wallet"))


@app.command()
def faucet(
    units: Annotated[int, typer.Argument(min=1, help="Whole units.")],
    follow_it: FollowFlag = True,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Draw test funds; only where the platform's network is a test network. On the devnet they come by a real transaction."""
    del yes  # accepted everywhere; there is nothing to lose here
    out = Output(as_json)
    with connect() as client:
        answer = client.post("/api/wallets/faucet", {"amount": units})
        payment = answer.get("payment")
        if payment is None:
            out.show(f"{amount(units)} of test funds drawn")
            out.finish(answer, then=("qubix wallet", "qubix offers", "qubix run mnist"))
            return
        out.show(Text(f"{amount(units)} of test funds are sent for tick {payment['tick']}"), Text(bare(payment["explorer_url"])))
        row = _until_left(lambda: follow(client, payment["id"], teller(out))) if follow_it else None
    if follow_it and row is None:
        out.note("the chain has not shown it yet; qubix wallet deposit goes on waiting")
    then = ("qubix wallet", "qubix offers", "qubix run mnist")
    out.finish({**answer, "transaction": row}, then=then, code=code_of(row) if follow_it else ExitCode.DONE)


def _until_left(work: Callable[[], T]) -> T | None:
    """Work until it is done, or until Ctrl-C: then None, and what was begun goes on without us."""
    try:
        return work()
    except KeyboardInterrupt:
        return None
