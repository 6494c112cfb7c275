"""`qubix treasury recover`: after a restore, the payments that the chain shows and the backup did not know yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from qubix.cli.output import ExitCode, JsonFlag, Output, WrongUsage, YesFlag, amount, plain, table
from qubix.cli.treasury import TREASURY, By, DataDir, UrlFile, app, end_payment, look, person_of, there, work_as
from qubix.kernel.errors import Conflict, Invalid, NotFound
from qubix.kernel.ids import new_id

if TYPE_CHECKING:
    from qubix.bootstrap import Resources
    from qubix.treasury.oversight import Oversight
    from qubix.treasury.recovering import Explained, Place


PROOF: Final = "PROOF"
"""In a proposed command, where a person writes what proves that nothing was paid; the word itself proves nothing."""


@app.command()
def recover(
    transaction: Annotated[str | None, typer.Argument(help="One that its own memo or payees do not explain; default: all that do.")] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="E-mail of who asked for that withdrawal after the backup; once for each payee that lacks one.")
    ] = None,
    house: Annotated[bool, typer.Option("--house", help="Nobody's wallet can be charged with it: the platform bears it.")] = False,
    unpaid: Annotated[str, typer.Option(help="What proves that it paid nothing: the withdrawals that it names are then paid again.")] = "",
    by: By = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """After a restore: book what the chain has paid since the backup, so that nothing is paid twice. Then: qubix treasury resume '*'.

    Booked by itself is what is explained and proved; of the rest you say whose it was, or what became of it.
    """
    if transaction is None and (user or house or unpaid):
        raise WrongUsage("--user, --house and --unpaid are about one transaction", next_step="name it: qubix treasury recover lists them")
    if unpaid == PROOF:
        raise WrongUsage(
            f"{PROOF} stands for what proves that it paid nothing", next_step="say in its place where you looked, and what you found"
        )
    if unpaid and (user or house):
        raise WrongUsage("what has paid nothing is charged to nobody", next_step="--unpaid alone, or without it")
    out, who = Output(as_json), person_of(by)
    cursor, until = look(data_dir, url_file, TREASURY, lambda desk: desk.recovered_to())
    found = look(data_dir, url_file, TREASURY, _explained)
    booked: list[str] = []
    if transaction is not None:
        one = next((one for one in found if one.lost.tx_id == transaction), None)
        if one is None:
            raise NotFound(f"{transaction} is not among the payments to recover", next_step="qubix treasury recover lists them")
        doubt = f" Nothing proves that it did: {plain(one.lost.doubt)}." if one.lost.doubt else ""
        if unpaid:
            out.confirm(f"Has {one.lost.tx_id} paid nothing, so that {amount(one.lost.amount)} may be paid again?", yes)
            work_as(data_dir, url_file, TREASURY, lambda held: _say_unpaid(held, one, f"{unpaid}; decided by {who}"))
        else:
            bearer = _bearer(one, user or [], house)
            out.confirm(f"Book {amount(one.lost.amount)} to {one.lost.destination} as paid by {bearer}?{doubt}", yes)
            work_as(data_dir, url_file, TREASURY, lambda held: _book_one(held, one, user or [], house, who))
            booked = [transaction]
    elif whole := [one for one in found if one.is_bookable]:
        _show(out, whole, "Found on the chain, explained and proved")
        out.confirm(f"Book these {len(whole)} as paid?", yes)
        for each in whole:
            work_as(data_dir, url_file, TREASURY, lambda held, each=each: _book(held, each, who))  # type: ignore[misc]
            booked.append(each.lost.tx_id)
    left = look(data_dir, url_file, TREASURY, _explained)  # again: so many are listed, there may be more
    _show(out, left, "Not explained, or not proved: say whose they were, or what became of them")
    caught_up = until is not None and cursor >= until
    if not caught_up:
        out.show(f"the chain is booked to tick {cursor} of {until or 'not known yet: the treasury has not looked'}: look again in a while")
    elif not left:
        out.show("the chain shows nothing more that is not in the books; payouts go on by: qubix treasury resume '*'")
    document = {"booked": booked, "left": [_row(one) for one in left], "cursor": cursor, "until": until, "caught_up": caught_up}
    if stuck := next((one for one in left if not one.is_bookable), None):
        then = there(data_dir, *_ways(stuck))
    else:
        then = there(data_dir, "qubix treasury resume '*'" if caught_up and not left else "qubix treasury recover", "qubix treasury status")
    out.finish(document, then=then, code=ExitCode.DONE if caught_up and not left else ExitCode.NOT_FINISHED)


def _ways(one: Explained) -> list[str]:
    """The commands that may settle a payment that needs a person's word; those that charge somebody only where it is proved that it has paid."""
    command = f"qubix treasury recover {one.lost.tx_id}"
    if not one.lost.is_proved:
        return [f"{command} --unpaid {PROOF}", *([command] if one.is_whole else [])]
    lacking = sum(place.owed is None for place in one.places)
    by_users = [f"{command}{' --user EMAIL' * lacking}"] if lacking and one.kind != "unknown" else []
    return [*by_users, f"{command} --house"]


async def _explained(desk: Oversight) -> list[Explained]:
    from qubix.treasury.recovering import explain

    return explain(await desk.strangers(), await desk.owed())


async def _book(held: Resources, one: Explained, who: str, users: Sequence[str] = (), *, house: bool = False) -> None:
    """Write a lost payment down and end it as paid; each step repeatable.

    Args: users, whose withdrawals those were that are not here any more, in their order: they are made again in the transaction that writes the
    payment down, so that none is left open which nothing here pays; house, the house bears those instead, beside the fee.
    """
    from qubix.bootstrap import scope
    from qubix.ledger.model import refuse
    from qubix.treasury.oversight import Oversight

    borne = sum(place.amount for place in one.places if place.owed is None) if house else 0
    left = iter(users)
    async with scope(held) as s:
        desk = Oversight(s.connection)
        holds = [place.owed or await _asked_again(desk, place, next(left)) for place in one.places if place.owed is not None or not house]
        code = await desk.recover_payment(new_id(), one.lost.tx_id, one.fee + borne, holds)
        if code < 0:
            refuse(code, f"the lost payment {one.lost.tx_id}")
        payment = await desk.payment(one.lost.tx_id)
    await end_payment(held, payment, True, f"on the chain in tick {one.lost.tick}, found after a restore; booked by {who}")


async def _asked_again(desk: Oversight, place: Place, email: str) -> UUID:
    """A withdrawal that was asked for after the backup, made again. Raises: Conflict where the wallet has not that much."""
    from qubix.ledger.model import Code, refuse

    hold = place.named or new_id()
    code = await desk.recover_hold(hold, await desk.user_by_email(email), place.amount, place.address)
    if code is Code.INSUFFICIENT:
        raise Conflict(
            f"the wallet of {email} has less than {amount(place.amount)} now: what was earned after the backup is lost",
            next_step="once all deposits are found again, --house books it to the platform",
        )
    if code < 0:
        refuse(code, f"the withdrawal of {email}")
    return hold


async def _say_unpaid(held: Resources, one: Explained, proof: str) -> None:
    from qubix.bootstrap import scope
    from qubix.treasury.oversight import Oversight

    async with scope(held) as s:
        said = not one.lost.is_proved and await Oversight(s.connection).unpaid(one.lost.tx_id, proof)
    if not said:
        raise Conflict("it is proved that it has paid", next_step="qubix treasury recover books it")


async def _book_one(held: Resources, one: Explained, users: Sequence[str], house: bool, who: str) -> None:
    lacking = [place for place in one.places if place.owed is None]
    if house and one.is_whole:
        raise Invalid("the books know what it was for: nobody has to bear it", next_step="qubix treasury recover, without --house")
    if house and len(lacking) == len(one.places):
        await _book_cost(held, one, who)
        return
    if one.kind == "unknown" or (not house and len(lacking) != len(users)):
        raise Invalid(
            f"it has {len(lacking)} payees without a withdrawal here, and {len(users)} users are named {one.reason and f'({one.reason})'}",
            next_step="--user once for each of them, in their order; or --house, where nobody's wallet can be charged with it",
        )
    await _book(held, one, who, users, house=house)


async def _book_cost(held: Resources, one: Explained, who: str) -> None:
    """The house bears all of it: no withdrawal here is in it, so none can be paid again."""
    from qubix.bootstrap import scope
    from qubix.ledger.model import Code, refuse
    from qubix.treasury.oversight import Oversight

    async with scope(held) as s:
        code = await Oversight(s.connection).recover_cost(one.lost.tx_id, f"lost by a restore; borne by the house, decided by {who}")
    if code is Code.INSUFFICIENT:
        raise Conflict("the house has less than that", next_step="send it to the house's address first: qubix treasury addresses")
    if code < 0:
        refuse(code, f"the cost of {one.lost.tx_id}")


def _bearer(one: Explained, users: Sequence[str], house: bool) -> str:
    if house:
        return " and ".join([*["the withdrawals that it names"][: any(place.owed for place in one.places)], "the house"])
    return " and ".join(users) or ("the paying address's own sweep" if one.kind == "sweep" else "the withdrawals that it names")


def _known(one: Explained) -> str:
    return one.reason or f"{sum(place.owed is not None for place in one.places)} of {len(one.places)} payees known"


def _row(one: Explained) -> dict[str, Any]:
    lost = one.lost
    return {
        "tx_id": lost.tx_id,
        "kind": one.kind,
        "amount": lost.amount,
        "source": lost.source,
        "destination": lost.destination,
        "tick": lost.tick,
        "reason": one.reason,
        "proved": lost.is_proved,
        "doubt": lost.doubt,
        "payees": [
            {
                "address": place.address,
                "amount": place.amount,
                "hold_id": place.owed and str(place.owed),
                "named": place.named and str(place.named),
            }
            for place in one.places
        ],
    }


def _show(out: Output, found: Sequence[Explained], title: str) -> None:
    if not found:
        return
    rows = [
        (
            one.lost.tx_id,
            one.kind,
            amount(one.lost.amount),
            one.lost.tick,
            one.lost.destination,
            "; ".join(filter(None, [_known(one), one.lost.doubt and f"not proved: {one.lost.doubt}"])),
        )
        for one in found
    ]
    out.show(table(title, ("tx_id", "kind", "amount", "tick", "to", "why"), rows, right=("amount",)))
