"""Disputes over a job's escrow: `qubix escrow`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qubix.cli.client import connect
from qubix.cli.output import JsonFlag, Output, YesFlag, ago, amount, ask, table

app = typer.Typer(help="A job's escrow: look at it, dispute it, resolve a dispute.", no_args_is_help=True)


@app.command()
def show(escrow_id: Annotated[str, typer.Argument(help="The job's id.")], as_json: JsonFlag = False) -> None:
    """Show what was held, what was paid, what went back."""
    out = Output(as_json)
    with connect() as client:
        escrow = client.get(f"/api/escrows/{escrow_id}")
    out.show(escrow_table(escrow))
    disputed = escrow.get("disputed_at") is not None
    then = (f"qubix show {escrow_id}",) if disputed else (f"qubix escrow dispute {escrow_id}", f"qubix show {escrow_id}")
    out.finish(escrow, then=then)


@app.command()
def dispute(
    escrow_id: Annotated[str, typer.Argument(help="The job's id.")],
    evidence: Annotated[str | None, typer.Option(help="What is wrong, for the arbiter; asked for at a terminal.")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Freeze what the provider earned until an arbiter decides."""
    out = Output(as_json)
    [told] = ask(out, yes, evidence=(evidence, "What is wrong"))
    out.confirm(f"Dispute the escrow of job {escrow_id}?", yes)
    with connect() as client:
        escrow = client.post(f"/api/escrows/{escrow_id}/dispute", {"evidence": told})
    out.show("disputed; an arbiter decides within 14 days")
    out.finish(escrow, then=(f"qubix escrow show {escrow_id}", f"qubix show {escrow_id}"))


@app.command()
def resolve(
    escrow_id: Annotated[str, typer.Argument(help="The job's id.")],
    to_payee: Annotated[
        int | None, typer.Option(min=0, help="Whole units for the provider, the rest goes back; default: what was metered.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for both sides; asked for at a terminal.")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Decide a dispute (arbiters)."""
    out = Output(as_json)
    [why] = ask(out, yes, reason=(reason, "Why, for both sides"))
    share = "what was metered" if to_payee is None else amount(to_payee)
    out.confirm(f"Give the provider {share} and the consumer the rest?", yes)
    with connect() as client:
        escrow = client.post(f"/api/escrows/{escrow_id}/resolve", {"to_payee": to_payee, "reason": why})
    out.show("resolved")
    out.finish(escrow, then=(f"qubix escrow show {escrow_id}",))


def escrow_table(escrow: dict[str, Any]) -> Any:
    """One escrow and its lines."""
    rows = [("state", escrow.get("state"))]
    rows += [(name, amount(escrow.get(name))) for name in ("funded", "paid", "refunded")]
    if escrow.get("disputed_at") is not None:
        waits = escrow.get("state") == "DISPUTED" or any(line.get("state") == "FROZEN" for line in escrow["lines"])
        rows.append(("disputed", f"{ago(escrow['disputed_at'])}, {'an arbiter decides' if waits else 'decided'}"))
    for line in escrow["lines"]:
        ruled = "" if line.get("to_payee") is None else f", {amount(line['to_payee'])} of it to the provider"
        rows.append((f"line {str(line.get('line'))[:13]}", f"{amount(line.get('gross'))}  {line.get('state')}{ruled}"))
    return table("Escrow", ("what", ""), rows)
