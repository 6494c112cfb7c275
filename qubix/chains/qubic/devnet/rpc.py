"""What the RPC answers: `/live/v1` and `/query/v1`, and on request the two legacy shapes. 64-bit numbers are strings, 32-bit are numbers.

Shapes from the gateway's OpenAPI documents (qubic-http, archive-query-service v2); where those differ from what the gateway sends, bare
objects and lists, as in notes of 2026.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from qubix.chains.qubic.devnet import queries, wire
from qubix.chains.qubic.devnet.faults import Fault, Kind
from qubix.chains.qubic.devnet.ledger import Log
from qubix.chains.qubic.devnet.network import Network, View
from qubix.chains.qubic.devnet.queries import EVENT_COLUMNS, HITS_MAX, TRANSACTION_COLUMNS, U32_MAX, Page, Where, unsigned
from qubix.chains.qubic.devnet.refusal import Code, Refusal, bad
from qubix.chains.qubic.devnet.store import Row

Document = dict[str, Any]
Body = Mapping[str, Any]
_PROTO: Final = "type.googleapis.com/qubic.v2.archive.pb."
_QUTIL_INDEX: Final = 4
_FEE_FUNCTION: Final = 1
_PEERS: Final = 3


class Rpc:
    """The answers, over one network. Each takes what the request sees and says, and returns a JSON document or raises Refusal.

    Args: network; duration_s, the seconds of a tick, which tick-info tells.
    """

    def __init__(self, network: Network, duration_s: float = 1.0) -> None:
        self._network = network
        self._duration_s = duration_s

    def tick_info(self, view: View, _: Body) -> Document:
        """GET /live/v1/tick-info."""
        intervals = self._network.ledger.intervals(view.tick)
        epoch = intervals[-1].epoch
        first = next(interval.first for interval in intervals if interval.epoch == epoch)
        return {"tickInfo": {"tick": view.tick, "duration": round(self._duration_s), "epoch": epoch, "initialTick": first}}

    def balance(self, view: View, body: Body) -> Document:
        """GET /live/v1/balances/{id}; an unknown identity has nothing."""
        account = self._network.account(queries.check_identity(body.get("id")), view)
        document = {
            "id": body["id"],
            "balance": str(account.balance),
            "validForTick": view.tick,
            "latestIncomingTransferTick": account.incoming_tick,
            "latestOutgoingTransferTick": account.outgoing_tick,
            "incomingAmount": str(account.incoming),
            "outgoingAmount": str(account.outgoing),
            "numberOfIncomingTransfers": account.incoming_count,
            "numberOfOutgoingTransfers": account.outgoing_count,
        }
        return {"balance": document}

    def broadcast(self, view: View, body: Body) -> Document:
        """POST /live/v1/broadcast-transaction. What became of it, the answer does not say."""
        receipt = self._network.broadcast(_base64(body, "encodedTransaction"), view.door)
        return {"peersBroadcasted": _PEERS, "encodedTransaction": body.get("encodedTransaction", ""), "transactionId": receipt.id}

    def query_smart_contract(self, view: View, body: Body) -> Document:
        """POST /live/v1/querySmartContract: QUTIL's fee; other contracts are not there and say nothing."""
        index, function, size = (unsigned(body.get(name, 0), name, U32_MAX) for name in ("contractIndex", "inputType", "inputSize"))
        if size != len(_base64(body, "requestData")):
            raise bad("inputSize does not fit requestData")
        answer = b""
        if (index, function) == (_QUTIL_INDEX, _FEE_FUNCTION):
            answer = self._network.send_many_fee().to_bytes(8, "little")
        return {"responseData": _text(answer)}

    def last_processed_tick(self, view: View, _: Body) -> Document:
        """GET /query/v1/getLastProcessedTick."""
        interval = self._network.intervals(view)[-1]
        return {
            "tickNumber": view.archived,
            "epoch": interval.epoch,
            "intervalInitialTick": interval.first,
            "lastProcessedLogTick": view.logged,
        }

    def processed_tick_intervals(self, view: View, _: Body) -> list[Document]:
        """GET /query/v1/getProcessedTickIntervals."""
        found = self._network.intervals(view)
        return [{"epoch": interval.epoch, "firstTick": interval.first, "lastTick": interval.last} for interval in found]

    def transaction_by_hash(self, view: View, body: Body) -> Document:
        """POST /query/v1/getTransactionByHash. Not found means nothing before the archive has the target tick."""
        return self._transaction(view, self._row_of(view, queries.check_hash(body.get("hash"))))

    def transactions_for_tick(self, view: View, body: Body) -> list[Document]:
        """POST /query/v1/getTransactionsForTick."""
        where = Where()
        where.add("tick = ?", self._archived_tick(view, body))
        names = ("source", "destination", "amount", "inputType")
        where.add_filters(body, TRANSACTION_COLUMNS, names, ("amount", "inputType"))
        rows = self._network.store.rows(f"SELECT * FROM transactions WHERE {where.sql} ORDER BY place", where.values)  # noqa: S608
        return self._transactions(view, rows)

    def transactions_for_identity(self, view: View, body: Body) -> Document:
        """POST /query/v1/getTransactionsForIdentity, the newest first."""
        found = body.get("identity")
        queries.check_identity(found)
        page, where = queries.page_of(body), Where()
        where.add("tick <= ?", view.archived)
        where.add("(source = ? OR destination = ?)", found, found)
        names = ("source", "destination", "amount", "inputType", "tickNumber")
        where.add_filters(body, TRANSACTION_COLUMNS, names, ("amount", "inputType", "tickNumber", "timestamp"))
        total, rows = self._page("transactions", where, page, "tick DESC, place DESC")
        transactions = self._transactions(view, rows)
        return {"validForTick": view.archived, "hits": _hits(total, page, len(transactions)), "transactions": transactions}

    def tick_data(self, view: View, body: Body) -> Document:
        """POST /query/v1/getTickData."""
        number = self._archived_tick(view, body)
        (tick,) = self._network.store.rows("SELECT * FROM ticks WHERE number = ?", (number,))
        rows = self._network.store.rows("SELECT id FROM transactions WHERE tick = ? ORDER BY place", (number,))
        document = {
            "tickNumber": number,
            "epoch": tick["epoch"],
            "computorIndex": number % 676,
            "timestamp": str(tick["timestamp"]),
            "varStruct": "",
            "timeLock": _text(bytes(32)),
            "transactionHashes": [row["id"] for row in rows if not self._forgets(view, row["id"])],
            "contractFees": [],
            "signature": _text(bytes(64)),
        }
        return {"tickData": document}

    def event_logs(self, view: View, body: Body) -> Document:
        """POST /query/v1/getEventLogs, the newest first."""
        page, where = queries.page_of(body), Where()
        where.add("tick <= ?", view.logged)
        names = ("source", "destination", "amount", "tickNumber", "epoch", "logType", "transactionHash")
        where.add_filters(body, EVENT_COLUMNS, names, ("amount", "tickNumber", "epoch", "timestamp"))
        total, rows = self._page("events", where, page, "id DESC")
        told = [_event(row) for row in rows if not self._forgets(view, row["transaction_id"])]
        events = self._twice(view, told)
        # Who denies something does not count it either.
        return {"hits": _hits(total - len(rows) + len(told), page, len(events)), "eventLogs": events, "validForTick": view.logged}

    def legacy_status(self, view: View, body: Body) -> Document:
        """GET /v1/tx-status/{id}, which ends with 2026."""
        found = self._transaction(view, self._row_of(view, queries.check_hash(body.get("id"))))
        return {"transactionStatus": {"txId": found["hash"], "moneyFlew": found.get("moneyFlew", False)}}

    def legacy_transaction(self, view: View, body: Body) -> Document:
        """GET /v2/transactions/{id}, which ends with 2026."""
        row = self._row_of(view, queries.check_hash(body.get("id")))
        found, (payload, signature) = self._transaction(view, row), wire.tail(row["encoded"])
        document = {
            "sourceId": found["source"],
            "destId": found["destination"],
            "amount": found["amount"],
            "tickNumber": found["tickNumber"],
            "inputType": found["inputType"],
            "inputSize": found["inputSize"],
            "inputHex": payload.hex(),
            "signatureHex": signature.hex(),
            "txId": found["hash"],
        }
        return {"transaction": document, "timestamp": found["timestamp"], "moneyFlew": found.get("moneyFlew", False)}

    def _archived_tick(self, view: View, body: Body) -> int:
        """The tick that a request names. Raises: Refusal (9) if the archive has not come so far, (11) if it was skipped."""
        number = unsigned(body.get("tickNumber", 0), "tickNumber", U32_MAX)
        if number > view.archived:
            message = f"requested tick number {number} is greater than last processed tick {view.archived}"
            detail = {"@type": _PROTO + "LastProcessedTick", "tickNumber": view.archived}
            raise Refusal(Code.FAILED_PRECONDITION, message, detail)
        following = next(interval for interval in self._network.intervals(view) if number <= interval.last)
        if number < following.first:
            message = f"provided tick number {number} was skipped by the system, next available tick is {following.first}"
            raise Refusal(Code.OUT_OF_RANGE, message, {"@type": _PROTO + "NextAvailableTick", "nextTickNumber": following.first})
        return number

    def _row_of(self, view: View, hash_: str) -> Row:
        rows = self._network.store.rows("SELECT * FROM transactions WHERE id = ? AND tick <= ?", (hash_, view.archived))
        if not rows or self._forgets(view, hash_):
            raise Refusal(Code.NOT_FOUND, "transaction not found")
        return rows[0]

    def _page(self, table: str, where: Where, page: Page, order: str) -> tuple[int, list[Row]]:
        store = self._network.store
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {where.sql} LIMIT {HITS_MAX})"  # noqa: S608  (our own words)
        selected = f"SELECT * FROM {table} WHERE {where.sql} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
        return store.rows(counted, where.values)[0][0], store.rows(selected, [*where.values, page.size, page.offset])

    def _transactions(self, view: View, rows: list[Row]) -> list[Document]:
        return self._twice(view, [self._transaction(view, row) for row in rows if not self._forgets(view, row["id"])])

    def _transaction(self, view: View, row: Row) -> Document:
        payload, signature = wire.tail(row["encoded"])
        document = {
            "hash": row["id"],
            "amount": str(row["amount"]),
            "source": row["source"],
            "destination": row["destination"],
            "tickNumber": row["tick"],
            "timestamp": str(row["timestamp"]),
            "inputType": row["input_type"],
            "inputSize": len(payload),
            "inputData": _text(payload),
            "signature": _text(signature),
            "moneyFlew": bool(row["moved"]),
        }
        return self._with_wrong_money_flew(view, document)

    def _with_wrong_money_flew(self, view: View, document: Document) -> Document:
        fault = self._strikes(Kind.MONEY_FLEW, view, document["hash"])
        if fault is None:
            return document
        if fault.mode == "missing":
            return {name: value for name, value in document.items() if name != "moneyFlew"}
        wrong = not document["moneyFlew"] if fault.mode == "inverted" else fault.mode == "true"
        return {**document, "moneyFlew": wrong}

    def _forgets(self, view: View, hash_: str) -> bool:
        return self._strikes(Kind.FORGET, view, hash_) is not None

    def _twice(self, view: View, found: list[Document]) -> list[Document]:
        if self._strikes(Kind.DUPLICATE, view):
            return [row for row in reversed(found) for _ in range(2)]
        return found

    def _strikes(self, kind: Kind, view: View, of: str | None = None) -> Fault | None:
        return self._network.faults.strikes(kind, self._network.ledger.tick, door=view.door, area="query", of=of)


def _event(row: Row) -> Document:
    document = {
        "epoch": row["epoch"],
        "tickNumber": row["tick"],
        "timestamp": str(row["timestamp"]),
        "transactionHash": row["transaction_id"],
        "logId": str(row["id"]),
        "logDigest": "",
        "logType": row["kind"],
        "categories": [],
    }
    amount = str(row["amount"])
    if row["kind"] == Log.BURNING:
        return {**document, "burning": {"source": row["source"], "amount": amount, "contractIndexBurnedFor": str(_QUTIL_INDEX)}}
    return {**document, "quTransfer": {"source": row["source"], "destination": row["destination"], "amount": amount}}


def _hits(total: int, page: Page, size: int) -> Document:
    return {"total": total, "from": page.offset, "size": size}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _base64(body: Body, name: str) -> bytes:
    found = body.get(name, "")
    try:
        return base64.b64decode(found if isinstance(found, str) else "*", validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad(f"illegal base64 data in {name}") from error
