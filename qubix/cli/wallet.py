"""Money of this account: `qubix wallet`."""

from __future__ import annotations

from typing import Annotated

import typer

from qubix.cli.client import connect
from qubix.cli.output import JsonFlag, Output, YesFlag, ago, amount, table

app = typer.Typer(help="Balance, history, test funds.", invoke_without_command=True)


def register(parent: typer.Typer) -> None:
    """Add this noun's commands."""
    parent.add_typer(app, name="wallet", rich_help_panel="Account")


@app.callback()
def balance(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the balance, what escrows hold, and pending earnings."""
    if context.invoked_subcommand is not None:
        return
    out = Output(as_json)
    with connect() as client:
        wallet = client.get("/api/wallets/balance")
    rows = [
        (
            item["asset"],
            amount(item["available"]),
            amount(item["in_escrow"]),
            amount(item["pending_earnings"]),
            amount(item["earned"]),
            amount(item["spent"]),
        )
        for item in wallet["wallets"]
    ]
    columns = ("asset", "available", "in escrow", "pending earnings", "earned", "spent")
    out.show(table("Wallet", columns, rows, right=columns[1:]))
    out.finish(wallet, then=("qubix wallet history", "qubix wallet faucet 1000000", "qubix offers"))


@app.command()
def history(limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: JsonFlag = False) -> None:
    """List what moved, newest first."""
    out = Output(as_json)
    with connect() as client:
        items = client.pages("/api/wallets/transactions", items_max=limit)
    if not items:
        out.show("nothing has moved in this wallet yet")
        out.finish({"items": []}, then=("qubix wallet faucet 1000000", "qubix provider join"))
        return
    rows = [
        (
            ago(item["created_at"]),
            item["type"] + (f" ({item['status']})" if item["status"] != "completed" else ""),
            moved(item["amount"], item["change"]),
            amount(item["balance"]),
            item["job_id"],
        )
        for item in items
    ]
    out.show(table("History", ("when", "what", "amount", "balance after", "job"), rows, right=("amount", "balance after")))
    jobs = [item["job_id"] for item in items if item["job_id"]]
    out.finish({"items": items}, then=("qubix wallet", f"qubix show {jobs[0]}" if jobs else "qubix jobs"))


def moved(units: int, change: int) -> str:
    """A transaction's amount: signed by what it did to the balance, without a sign where it tells what became of money that had left before."""
    return ("+" if change > 0 else "-" if change < 0 else "") + amount(units)


@app.command()
def faucet(units: Annotated[int, typer.Argument(min=1, help="Whole units.")], yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Draw test funds; only where the platform's network is a test network, and they cannot be withdrawn."""
    del yes  # accepted everywhere; there is nothing to lose here
    out = Output(as_json)
    with connect() as client:
        answer = client.post("/api/wallets/faucet", {"amount": units})
    out.show(f"{amount(units)} of test funds drawn")
    out.finish(answer, then=("qubix wallet", "qubix offers", "qubix run mnist"))
