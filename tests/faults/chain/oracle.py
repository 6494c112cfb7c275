"""Whether the money is right, by nobody's word but the database's rows and the network's own answers.

It shares no code with the product: plain SQL as the owner, plain HTTP to the devnet (whose faults must be cleared first), and what the test
itself asked for.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg


@dataclass(frozen=True)
class Withdrawal:
    """What a test asked for. Args: destination, an identity that is nobody else's, so that what it got is this withdrawal's."""

    hold: UUID
    destination: str
    amount: int


@dataclass(frozen=True)
class Found:
    """What the oracle counted, for reports. Args: unknown, payments that a person has to decide; chain, the money at our addresses."""

    captured: int
    open: int
    unknown: int
    dead: int
    chain: int


class Oracle:
    """Args: database, the owner's URL; devnet, its base URL."""

    def __init__(self, database: str, devnet: str) -> None:
        self._database = database
        self._devnet = devnet

    def check(self, withdrawals: Iterable[Withdrawal], *, strangers: Collection[str] = (), may_be_open: bool = False) -> Found:
        """Assert all of it.

        Args: withdrawals, every one that was ever granted; strangers, transactions from our addresses that a thief sent; may_be_open,
            whether payments may be left that are UNKNOWN (with a reason), and holds open because of them.
        """
        rows = asyncio.run(self._rows())
        assert rows["audit"] == []
        thefts = [shown for shown in map(self._transaction, strangers) if shown is not None and shown["moneyFlew"]]
        self._holds(rows, list(withdrawals), thefts, may_be_open)
        unresolved = self._payments(rows, may_be_open)
        self._sent(rows, set(strangers))
        chain = self._totals(rows, unresolved + sum(int(shown["amount"]) for shown in thefts))
        states = Counter(row["state"] for row in rows["payments"])
        held = Counter(row["state"] for row in rows["holds"])
        return Found(held["CAPTURED"], held["OPEN"], states["UNKNOWN"], states["DEAD"], chain)

    # -- each rule --

    def _holds(self, rows: dict[str, list[Any]], withdrawals: list[Withdrawal], thefts: list[dict[str, Any]], may_be_open: bool) -> None:
        """No withdrawal is lost, none is invented; each got exactly its amount, once, or nothing and is still held."""
        holds = {row["id"]: row for row in rows["holds"]}
        assert holds.keys() == {one.hold for one in withdrawals}
        live = {row["hold_id"]: row for row in rows["live"]}
        for one in withdrawals:
            row, got = holds[one.hold], self._balance(one.destination)
            others = [int(shown["amount"]) for shown in thefts if shown["destination"] == one.destination]
            arrived = (int(got["numberOfIncomingTransfers"]) - len(others), int(got["incomingAmount"]) - sum(others))
            if row["state"] == "CAPTURED":
                assert arrived == (1, one.amount), f"{one} is captured and got {arrived}"
            elif row["state"] == "VOIDED":
                assert arrived == (0, 0), f"{one} was given back and got {arrived}"
            else:
                assert may_be_open, f"{one} is still open"
                assert arrived in ((0, 0), (1, one.amount)), f"{one} got {arrived}"
                payment = live.get(one.hold)
                assert arrived == (0, 0) or payment, f"{one} was paid by nothing that is written down"
                assert payment is None or payment["state"] == "UNKNOWN", f"{one} waits without a word: {dict(payment)}"
                assert payment is None or payment["reason"], f"{one} is unknown for no reason"

    def _payments(self, rows: dict[str, list[Any]], may_be_open: bool) -> int:
        """What ended did as it says. Returns what unresolved payouts have taken from our addresses already."""
        taken = 0
        for row in rows["payments"]:
            shown = self._transaction(row["tx_id"])
            moved = shown is not None and shown["moneyFlew"]
            if row["state"] == "PAID":
                assert moved, f"{row['tx_id']} is called paid"
                assert shown is not None
                assert (shown["tickNumber"], int(shown["amount"])) == (row["tick"], row["amount"])
            elif row["state"] == "DEAD":
                assert not moved, f"{row['tx_id']} is called dead"
            else:
                assert may_be_open, f"{row['tx_id']} is {row['state']}: {row['reason']}"
                assert row["state"] == "UNKNOWN"
                assert row["reason"]
                taken += row["amount"] if moved and row["kind"] == "payout" else 0
        return taken

    def _sent(self, rows: dict[str, list[Any]], strangers: set[str]) -> None:
        """Nothing left an address of ours but what was stored first."""
        known = {row["tx_id"] for row in rows["payments"]} | strangers
        for address in rows["addresses"]:
            for shown in self._transactions_of(address["identity"]):
                assert shown["source"] != address["identity"] or shown["hash"] in known, f"nobody stored {shown['hash']}"

    def _totals(self, rows: dict[str, list[Any]], gone: int) -> int:
        """Chain = recorded rows = ledger, but for what is not resolved; each address received what is recorded as received."""
        balances = {row["identity"]: self._balance(row["identity"]) for row in rows["addresses"]}
        chain = sum(int(found["balance"]) for found in balances.values())
        pending = sum(row["amount"] for row in rows["incoming"] if row["state"] in ("WAITING", "DOUBTFUL") and self._moved(row["tx_id"]))
        [figures] = rows["figures"]
        assert figures["recorded"] == figures["posted"]
        assert chain == figures["posted"] - gone + pending, (chain, figures["posted"], gone, pending)
        credited: Counter[str] = Counter()
        for row in rows["deposits"]:
            credited[row["address"]] += row["amount"]
        for address in rows["addresses"]:
            if address["purpose"] != "hot":
                late = sum(
                    row["amount"] for row in rows["incoming"] if row["address"] == address["identity"] and row["state"] != "CREDITED"
                )
                received = int(balances[address["identity"]]["incomingAmount"])
                assert credited[address["identity"]] <= received <= credited[address["identity"]] + late
        return chain

    # -- the two sources --

    async def _rows(self) -> dict[str, list[Any]]:
        connection = await asyncpg.connect(self._database)
        try:
            questions = {
                "audit": "SELECT rule, n, example FROM audit() WHERE n > 0",
                "holds": "SELECT id, amount, address, state FROM holds",
                "live": """SELECT l.hold_id, p.state, p.reason FROM payment_holds l JOIN payments p ON p.id = l.payment_id WHERE l.live""",
                "payments": "SELECT tx_id, kind, state, reason, amount, tick FROM payments",
                "addresses": "SELECT identity, purpose FROM chain_addresses",
                "incoming": "SELECT tx_id, address, amount, state FROM incoming",
                "deposits": "SELECT address, amount FROM chain_rows WHERE kind = 'deposit'",
                "figures": """SELECT (SELECT coalesce(sum(amount), 0) FROM chain_rows)::bigint AS recorded,
                              (SELECT -posted FROM accounts WHERE kind = 'chain' AND asset = 1)::bigint AS posted""",
            }
            return {name: await connection.fetch(question) for name, question in questions.items()}
        finally:
            await connection.close()

    def _balance(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(f"/live/v1/balances/{identity}")["balance"]
        return found

    def _transaction(self, tx_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._ask("/query/v1/getTransactionByHash", {"hash": tx_id})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            return None
        return found

    def _moved(self, tx_id: str) -> bool:
        shown = self._transaction(tx_id)
        return shown is not None and bool(shown["moneyFlew"])

    def _transactions_of(self, identity: str) -> list[dict[str, Any]]:
        asked = {"identity": identity, "pagination": {"offset": 0, "size": 1000}}
        found = self._ask("/query/v1/getTransactionsForIdentity", asked)
        assert int(found["hits"]["total"]) < 1000, "the oracle reads one page"
        rows: list[dict[str, Any]] = found["transactions"]
        return rows

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._devnet + path, data, {"Content-Type": "application/json"})  # noqa: S310  (the loopback)
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
