"""The devnet's explorer: what links to a transaction, an address or a tick open. Plain pages of the truth, without faults and lag."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import queries, wire
from qubix.chains.qubic.devnet.network import Network
from qubix.chains.qubic.devnet.refusal import Refusal

ROWS_MAX: Final = 100
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "h1{font-size:1.2rem;overflow-wrap:anywhere}th{text-align:left;vertical-align:top;padding-right:1.5rem}"
    "td{overflow-wrap:anywhere}td.n{text-align:right;white-space:nowrap}"
)
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Html(str):
    """Markup of ours; any other string is text."""


def routes(network: Network) -> list[BaseRoute]:
    """The pages, under /network."""

    def route(path: str, page: Callable[[Network, str], Response]) -> Route:
        async def serve(request: Request) -> Response:
            try:
                return page(network, request.path_params["name"])
            except Refusal as refusal:
                return _page("Not a page", [_p(refusal.message)], 404)

        return Route(path, serve, methods=["GET"])

    return [route("/tx/{name}", transaction), route("/address/{name}", address), route("/tick/{name}", tick)]


def transaction(network: Network, name: str) -> Response:
    """GET /network/tx/{id}: what became of it, or that the network does not know it (any more, or yet). Raises: Refusal for no id."""
    known = queries.check_hash(name)
    title = f"Transaction {known}"
    for row in network.store.rows("SELECT * FROM transactions WHERE id = ?", (known,)):
        payload, _ = wire.tail(row["encoded"])
        archived = row["tick"] <= network.ledger.state.archived
        shown = [
            ("executed in tick", _tick(row["tick"])),
            ("at", _time(row["timestamp"])),
            ("from", _address(row["source"])),
            ("to", _address(row["destination"])),
            ("amount", _amount(row["amount"])),
            ("money moved", "yes" if row["moved"] else "no"),
            ("input", f"type {row['input_type']}, {len(payload)} bytes"),
            ("memo", payload.decode("ascii", "replace") if payload.isascii() else payload.hex()),
            (
                "archive",
                f"has it, {network.ledger.state.archived - row['tick']} ticks past it" if archived else "does not have its tick yet",
            ),
        ]
        moved = network.store.rows("SELECT * FROM events WHERE transaction_id = ? ORDER BY id LIMIT ?", (known, ROWS_MAX))
        return _page(title, [_facts(shown), _p("What it moved:"), _events(moved)])
    for ticked, waiting in network.ledger.state.pool.items():
        if known in waiting:
            found = waiting[known].wire
            shown = [
                ("waits for tick", _tick(ticked)),
                ("now", _tick(network.ledger.tick)),
                ("from", _address(identity.encode(found.source))),
                ("to", _address(identity.encode(found.destination))),
                ("amount", _amount(found.amount)),
            ]
            return _page(title, [_facts(shown)])
    return _page(title, [_p("This network has no such transaction: it never came here, or its tick passed without it.")], 404)


def address(network: Network, name: str) -> Response:
    """GET /network/address/{ID}: what it has, and its latest transactions. Raises: Refusal for no identity."""
    key = queries.check_identity(name)
    account = network.ledger.account(key)
    shown = [
        ("balance", _amount(account.balance)),
        ("after tick", _tick(network.ledger.tick)),
        ("received", f"{_amount(account.incoming)} in {account.incoming_count} transfers"),
        ("sent", f"{_amount(account.outgoing)} in {account.outgoing_count} transfers"),
    ]
    asked = "SELECT * FROM transactions WHERE source = ? OR destination = ? ORDER BY tick DESC, place DESC LIMIT ?"
    return _page(f"Address {name}", [_facts(shown), _transactions(network.store.rows(asked, (name, name, ROWS_MAX)))])


def tick(network: Network, name: str) -> Response:
    """GET /network/tick/{n}: its transactions. Raises: Refusal for no number."""
    number = queries.unsigned(name, "tick", queries.U32_MAX)
    title = f"Tick {number}"
    rows = network.store.rows("SELECT * FROM ticks WHERE number = ?", (number,))
    if not rows:
        later = number > network.ledger.tick
        return _page(title, [_p(f"It has not come yet: the network is at tick {network.ledger.tick}." if later else "It never was.")], 404)
    shown = [("epoch", str(rows[0]["epoch"])), ("at", _time(rows[0]["timestamp"]))]
    asked = "SELECT * FROM transactions WHERE tick = ? ORDER BY place LIMIT ?"
    return _page(title, [_facts(shown), _transactions(network.store.rows(asked, (number, ROWS_MAX)))])


def _page(title: str, parts: Iterable[_Html], status: int = 200) -> Response:
    heading = html.escape(title)
    body = f"<h1>{heading}</h1>{''.join(parts)}<p>Qubix devnet: test money, worth nothing.</p>"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{heading}</title>'
    )
    return HTMLResponse(f"{page}<style>{_STYLE}</style><body>{body}</body></html>", status, headers=_HEADERS)


def _safe(text: str) -> str:
    return text if isinstance(text, _Html) else html.escape(text)


def _p(text: str) -> _Html:
    return _Html(f"<p>{_safe(text)}</p>")


def _facts(rows: Iterable[tuple[str, str]]) -> _Html:
    return _Html("<table>" + "".join(f"<tr><th>{_safe(name)}</th><td>{_safe(said)}</td></tr>" for name, said in rows) + "</table>")


def _transactions(rows: Sequence[Any]) -> _Html:
    if not rows:
        return _p("No transactions.")
    lines = (
        f'<tr><td>{_tick(row["tick"])}</td><td><a href="../tx/{row["id"]}">{row["id"]}</a></td>'
        f'<td class="n">{_amount(row["amount"])}</td><td>{"" if row["moved"] else "not moved"}</td></tr>'
        for row in rows
    )
    return _Html("<table>" + "".join(lines) + "</table>")


def _events(rows: Sequence[Any]) -> _Html:
    if not rows:
        return _p("nothing")
    return _facts((_amount(row["amount"]), _Html(f"{_address(row['source'])} → {_address(row['destination'])}")) for row in rows)


def _tick(number: int) -> _Html:
    return _Html(f'<a href="../tick/{number}">{number}</a>')


def _address(name: str) -> _Html:
    return _Html(f'<a href="../address/{html.escape(name)}">{html.escape(name)}</a>')


def _amount(units: int) -> str:
    return f"{units:,} QU".replace(",", " ")


def _time(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).isoformat(sep=" ", timespec="seconds")
