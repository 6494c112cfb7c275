"""The chain's money on the treasury's own machine: `qubix treasury`. These commands talk to the database, not to the platform's API."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from uuid import UUID

import typer

from qubix.cli import runfile
from qubix.cli.output import JsonFlag, Output, WrongUsage, YesFlag, ago, amount, plain, table
from qubix.kernel.errors import Conflict, Invalid, QubixError, Unavailable
from qubix.kernel.money import Asset, Qu

if TYPE_CHECKING:
    from qubix.bootstrap import Resources
    from qubix.treasury.oversight import Oversight

SIGNER: Final = "qubix_signer"
TREASURY: Final = "qubix_treasury"

T = TypeVar("T")
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The platform's data folder.")]
UrlFile = Annotated[Path | None, typer.Option(help="File of mode 0600 with the URL of the database role; default: the data folder's.")]
By = Annotated[str | None, typer.Option(help="Who decides; default: this machine's user.")]

app = typer.Typer(help="Chain money: what waits, what stands still, and what only a person decides.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add this noun's commands."""
    parent.add_typer(app, name="treasury", rich_help_panel="This machine")


@app.command()
def status(data_dir: DataDir = None, url_file: UrlFile = None, as_json: JsonFlag = False) -> None:
    """Show the chain's state, halts with their figures, withdrawals that wait, payments that are not settled, money in doubt."""
    out = Output(as_json)
    found = look(data_dir, url_file, SIGNER, lambda desk: desk.status())
    _show_status(out, found)
    held = next((row["hold_id"] for row in found["waiting"] if "approval" in row["reason"]), "HOLD")
    person = [row for row in found["halts"] if row["needs_person"]]
    unknown = next((row["payment_id"] for row in found["payments"] if row["state"] == "UNKNOWN"), None)
    third = f"qubix treasury decide {unknown} --dead" if unknown else "qubix treasury addresses"
    second = f"qubix treasury resume '{person[0]['subject']}'" if person else "qubix treasury limits"
    if any("restored" in str(row["rule"]) for row in person):
        second = "qubix treasury recover"  # resume refuses until it has nothing left to find
    out.finish(found, then=there(data_dir, f"qubix treasury approve {held}", second, third))


@app.command()
def approve(
    hold: Annotated[UUID, typer.Argument(help="The withdrawal's id, as status shows it.")],
    by: By = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a withdrawal past the ceilings be signed."""
    out, who = Output(as_json), person_of(by)
    found = look(data_dir, url_file, SIGNER, lambda desk: desk.hold(hold))
    if found["state"] != "OPEN":
        raise Conflict(
            f"this withdrawal is {found['state'].lower()} already",
            next_step=there(data_dir, "qubix treasury status")[0] + " lists those that wait",
        )
    if found["approved_by"] is None:
        out.confirm(f"Pay {amount(found['amount'])} to {found['address']}?", yes)
        look(data_dir, url_file, SIGNER, lambda desk: desk.approve(hold, who), wake="payouts")
        found["approved_by"] = who
    out.show(f"{amount(found['amount'])} approved by {plain(found['approved_by'])}; the signer takes it next")
    out.finish(found, then=there(data_dir, "qubix treasury status", "qubix treasury limits", "qubix treasury addresses"))


@app.command()
def limits(
    payment: Annotated[int | None, typer.Option(min=0, help="The most for one withdrawal, in whole units.")] = None,
    user_day: Annotated[int | None, typer.Option(min=0, help="The most for one user within 24 hours.")] = None,
    wallet_day: Annotated[int | None, typer.Option(min=0, help="The most for all users within 24 hours.")] = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show or change what is signed without an approval."""
    import dataclasses

    out = Output(as_json)
    given = {"payment_max": payment, "user_day_max": user_day, "wallet_day_max": wallet_day}
    known = _ceilings(data_dir, url_file, None)
    wanted = dataclasses.replace(known, **{name: value for name, value in given.items() if value is not None})
    if wanted != known:
        told = ", ".join(f"{name.removesuffix('_max').replace('_', ' and ')} {amount(value)}" for name, value in _figures(wanted).items())
        out.confirm(f"Sign without an approval up to: {told}?", yes)
        _ceilings(data_dir, url_file, wanted)
    rows = [(name.removesuffix("_max").replace("_", " and "), amount(value)) for name, value in _figures(wanted).items()]
    out.show(table("Signed without an approval, per", ("what", ""), rows))
    out.finish(
        _figures(wanted),
        then=there(data_dir, "qubix treasury status", "qubix treasury approve HOLD", "qubix treasury limits --payment N"),
    )


@app.command()
def resume(
    subject: Annotated[str, typer.Argument(help="'*' for the halt of all payouts, or the deposit address of a single user's.")],
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """End a halt that does not end by itself, once its figures are explained."""
    out = Output(as_json)
    found = look(data_dir, url_file, TREASURY, lambda desk: desk.halt(subject))
    out.show(f"halted since {ago(found['since'])} by {plain(found['rule'])}: {plain(_written(found['figures']))}")
    if found["needs_person"]:
        out.confirm("Are these figures explained, so that payouts may go on?", yes)
    resumed = look(data_dir, url_file, TREASURY, lambda desk: desk.resume(subject), wake="payouts")
    out.show("payouts go on" if resumed else "payouts go on as soon as the figures of R1 and R2 agree again")
    out.finish({**found, "resumed": resumed}, then=there(data_dir, "qubix treasury status", "qubix treasury addresses", "qubix doctor"))


@app.command()
def decide(
    payment: Annotated[str, typer.Argument(help="The payment's id, or its transaction's.")],
    paid: Annotated[bool | None, typer.Option("--paid/--dead", help="It was executed and paid; or it never was, and never can be.")] = None,
    evidence: Annotated[str, typer.Option(help="What proves it: it stays with the books.")] = "",
    by: By = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """End a payment that nothing has proved paid or dead. A wrong answer pays twice, or never."""
    if paid is None or not evidence.strip():
        raise WrongUsage("say what became of it, and how that is known", next_step="--paid or --dead, and --evidence 'where it was seen'")
    out = Output(as_json)
    found = look(data_dir, url_file, TREASURY, lambda desk: desk.payment(payment))
    ended = {True: "PAID", False: "DEAD"}[paid]
    if found["state"] not in ("UNKNOWN", ended):
        why = "it is still being asked about" if found["state"] == "SIGNED" else "that is final"
        raise Conflict(
            f"this payment is {found['state'].lower()}: {why}",
            next_step=there(data_dir, "qubix treasury status")[0] + " lists those that are unknown",
        )
    if found["state"] == "UNKNOWN":
        out.show(
            f"{found['kind']} of {amount(found['amount'])} to {found['destination']}, for tick {found['tick']}: {plain(found['reason'])}"
        )
        out.show(_WARNING[paid])
        out.confirm(f"Transaction {found['tx_id']}: {'it has paid' if paid else 'it never paid'}?", yes)
        work_as(
            data_dir, url_file, TREASURY, lambda held: end_payment(held, found, paid, f"decided by {person_of(by)}: {evidence.strip()}")
        )
    out.show(f"booked as {ended.lower()}")
    out.finish({**found, "state": ended}, then=there(data_dir, "qubix treasury status", "qubix doctor", "qubix treasury addresses"))


@app.command()
def book(
    address: Annotated[str, typer.Argument(help="One of our addresses, whose surplus stops payouts.")],
    evidence: Annotated[str, typer.Option(help="What it is and where that was seen: it stays with the books.")] = "",
    payer: Annotated[str, typer.Option(help="Whose money it was: the contract's identity.")] = "",
    by: By = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Book money that came without a transaction, as a contract pays. Never what a transaction brought: that is credited by itself."""
    if not evidence.strip() or not payer.strip():
        raise WrongUsage("say what it is, and whose it was", next_step="--evidence 'where it was seen' and --payer IDENTITY")
    out = Output(as_json)
    found = look(data_dir, url_file, TREASURY, lambda desk: desk.surplus(address))
    surplus = found["balance"] - found["recorded"]
    where = {"user": "its user's wallet" if found["user_id"] else "suspense", "house": "the house's account"}.get(
        found["purpose"], "suspense"
    )
    out.show(f"{address} has {amount(found['balance'])} in tick {found['tick']}, {amount(found['recorded'])} are recorded")
    out.confirm(f"Book {amount(surplus)} to {where}?", yes)
    work_as(data_dir, url_file, TREASURY, lambda held: _book(held, found, payer.strip(), f"booked by {person_of(by)}: {evidence.strip()}"))
    out.show(f"{amount(surplus)} booked; payouts go on as soon as the figures were judged again")
    out.finish({**found, "booked": surplus}, then=there(data_dir, "qubix treasury status", "qubix doctor", "qubix treasury addresses"))


@app.command()
def addresses(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to list.")] = 50,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    as_json: JsonFlag = False,
) -> None:
    """List the paying address (hot), the one for the operator's float (house), and users' deposit addresses, the richest first."""
    out = Output(as_json)
    found = look(data_dir, url_file, SIGNER, lambda desk: desk.addresses(most=limit))
    rows = [(row["address"], row["purpose"], amount(row["recorded"]), row["user_id"]) for row in found]
    out.show(
        table("Addresses", ("address", "of", "recorded", "user"), rows, right=("recorded",)) if rows else "the signer has made none yet"
    )
    out.finish({"items": found}, then=there(data_dir, "qubix treasury status", "qubix treasury limits", "qubix signer"))


_WARNING: Final = {
    True: "[bold red]If it has not paid, its users lose this money.[/bold red] Look at two explorers: the transaction, its tick, and that the money moved.",
    False: "[bold red]If it has paid, or still can, its users are paid twice.[/bold red] Its tick must be over, and two archives must not have it.",
}


async def end_payment(held: Resources, payment: dict[str, Any], paid: bool, proof: str) -> None:
    """Book the decision: each hold, the fee, the end, each in a transaction of its own and each repeatable."""
    from qubix.bootstrap import scope
    from qubix.ledger.model import Code, refuse
    from qubix.treasury.model import chain_event
    from qubix.treasury.oversight import Oversight
    from qubix.treasury.store import TreasuryStore

    tx_id, tick, fee = payment["tx_id"], payment["tick"], payment["fee"]
    for hold in payment["holds"] if paid else ():
        async with scope(held) as s:
            code = await TreasuryStore(s.connection).captured(hold, tx_id, tick, proof)
            if code is Code.DONE:
                owner, units = await Oversight(s.connection).owner_of(hold)
                said = {"tx_id": tx_id, "state": "paid", "confirmations": 3, "tick": tick}
                s.outbox.add(chain_event(owner, "withdrawal", -units, hold, said))
        if code < 0:
            refuse(code, f"withdrawal {hold}")
    if paid and fee:
        async with scope(held) as s:
            code = await TreasuryStore(s.connection).cost(tx_id, Asset.QUBIC, Qu(fee), payment["source"], tick, proof)
        if code is Code.INSUFFICIENT:
            raise Conflict(
                f"the house cannot pay this payment's fee of {amount(fee)}",
                next_step="send that to the house's address (qubix treasury addresses), and decide again once it has arrived",
            )
        if code < 0:
            refuse(code, "the fee")
    async with scope(held) as s:
        code = await Oversight(s.connection).end_payment(payment["payment_id"], paid=paid, proof=proof)
        s.wake("payouts")
    if code < 0:
        refuse(code, f"payment {payment['payment_id']}")


async def _book(held: Resources, found: dict[str, Any], payer: str, proof: str) -> None:
    """A deposit that no transaction names: once per address and tick, and only while the figures that were agreed to still stand."""
    from qubix.bootstrap import scope
    from qubix.ledger.model import Code, refuse
    from qubix.treasury.model import chain_event
    from qubix.treasury.oversight import Oversight
    from qubix.treasury.store import Deposit, TreasuryStore

    address, tick, surplus = found["address"], found["tick"], Qu(found["balance"] - found["recorded"])
    named = f"no transaction/{address}/{tick}"
    async with scope(held) as s:
        if await Oversight(s.connection).surplus(address) != found:
            raise Conflict("the figures have changed while you looked", next_step="look again: qubix treasury status")
        [code] = await TreasuryStore(s.connection).deposit([Deposit(named, 0, Asset.QUBIC, surplus, address, tick, proof, payer)])
        if code is Code.DONE and found["user_id"] is not None:
            said = {"tx_id": None, "state": "credited", "confirmations": 3, "amount": surplus, "tick": tick, "address": address}
            s.outbox.add(chain_event(found["user_id"], "deposit", surplus, found["user_id"], said))
        s.wake("jobs")
    if code < 0:
        refuse(code, f"the surplus of {address}")


def look(
    data_dir: Path | None, url_file: Path | None, role: str, act: Callable[[Oversight], Awaitable[T]], *, wake: str | None = None
) -> T:
    """One transaction. Args: wake, a channel to wake after it."""

    async def once(held: Resources) -> T:
        from qubix.bootstrap import scope
        from qubix.treasury.oversight import Oversight

        async with scope(held) as s:
            found = await act(Oversight(s.connection))
            if wake is not None:
                s.wake(wake)
        return found

    return work_as(data_dir, url_file, role, once)


def _ceilings(data_dir: Path | None, url_file: Path | None, wanted: Any) -> Any:
    """The signer's ceilings, after they were set to `wanted` (None: as they are)."""

    async def once(held: Resources) -> Any:
        from qubix.bootstrap import scope
        from qubix.treasury.signing_store import SigningStore

        async with scope(held) as s:
            store = SigningStore(s.connection)
            if wanted is not None:
                await store.set_ceilings(wanted)
                s.wake("payouts")
            return await store.ceilings()

    return work_as(data_dir, url_file, SIGNER, once)


def _figures(ceilings: Any) -> dict[str, int]:
    return {name: getattr(ceilings, name) for name in ("payment_max", "user_day_max", "wallet_day_max")}


def work_as(data_dir: Path | None, url_file: Path | None, role: str, act: Callable[[Resources], Awaitable[T]]) -> T:
    """Work with the database as `role`. Raises: Unavailable when it does not answer."""
    import sqlalchemy as sa

    from qubix.bootstrap import open_resources
    from qubix.postgres.engine import DRIVER_TROUBLE, read_url_file
    from qubix.settings import Settings

    folder = (data_dir or runfile.default_data_dir()).resolve()
    file = url_file or folder / "secrets" / f"{role}.url"
    if not file.exists():
        next_step = "name the platform's folder with --data-dir, or another such file with --url-file"
        raise Invalid(f"there is no database URL file at {file}", next_step=next_step)
    url = read_url_file(file)

    async def whole() -> T:
        held = open_resources(Settings(), url=url, pool_size=1)
        try:
            return await act(held)
        finally:
            await held.close()

    try:
        return asyncio.run(whole())
    except QubixError as error:
        listing = "qubix treasury status"
        error.next_step = error.next_step.replace(listing, there(data_dir, listing)[0])
        raise
    except (sa.exc.OperationalError, sa.exc.InterfaceError, *DRIVER_TROUBLE) as error:
        next_step = f"is it running? {runfile.named('qubix up', folder)} starts it; --url-file names another"
        raise Unavailable(f"the database does not answer ({type(error).__name__})", next_step=next_step) from error


def there(data_dir: Path | None, *commands: str) -> list[str]:
    """Commands as they must be typed to reach the same platform. A --url-file is not passed on: each command takes its own role's."""
    folder = (data_dir or runfile.default_data_dir()).resolve()
    return [runfile.named(command, folder) for command in commands]


def person_of(by: str | None) -> str:
    return by or getpass.getuser()


def _written(figures: Any) -> str:
    return json.dumps(figures, default=str)


def figure_lines(figures: Any) -> list[str]:
    """What a halt's figures are, a line for each rule where several hold it."""
    if isinstance(figures, dict) and figures and all(isinstance(part, dict) for part in figures.values()):
        return [f"{rule}: " + ", ".join(f"{name} {_written(value)}" for name, value in part.items()) for rule, part in figures.items()]
    return [_written(figures)]


def _show_status(out: Output, found: dict[str, Any]) -> None:
    chain = found["chain"]
    if found["network"] == "none":
        out.show("network none: this ledger has no chain, and the treasury nothing to do")
    elif chain is None:
        out.show(f"network {found['network']}: the treasury has not looked at the chain yet")
    else:
        rows = [
            ("network", found["network"]),
            ("tick", f"{chain['head']}, archived to {chain['processed']}, booked to {chain['cursor']}"),
            ("epoch", f"{chain['epoch']}; the archive advanced {ago(chain['advanced_at'])}"),
            ("hot", found["addresses"].get("hot")),
            ("house", f"{found['addresses'].get('house') or '-'}  {amount(found['house'])}"),
            ("in suspense", amount(found["suspense"])),
            ("free addresses", found["free_addresses"]),
        ]
        out.show(table("Chain", ("what", ""), rows))
    for halt in found["halts"]:
        end = "until a person resumes" if halt["needs_person"] else "until the figures agree"
        out.show(f"[bold red]halted[/bold red] {halt['subject']} by {plain(halt['rule'])}, {end}:")
        out.show(*(f"  {plain(line)}" for line in figure_lines(halt["figures"])))
    _show_rows(out, "Withdrawals that wait", found["waiting"], ("hold_id", "amount", "address", "since", "reason"))
    _show_rows(out, "Payments not settled", found["payments"], ("payment_id", "kind", "state", "amount", "tick", "tx_id", "reason"))
    _show_rows(out, "Deposits not credited", found["incoming"], ("tx_id", "place", "amount", "tick", "state", "address", "reason"))


def _show_rows(out: Output, title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    cells = [
        [amount(row[name]) if name == "amount" else ago(row[name]) if name == "since" else row[name] for name in columns] for row in rows
    ]
    out.show(table(title, columns, cells, right=("amount",)))
