"""What the network answers, typed, and read strictly.

64-bit numbers arrive as strings, 32-bit ones as numbers, zeros may be left out, and a gateway may unwrap an answer or not (the archive's
OpenAPI says wrapped, its gateway sends bare): all that is accepted. Whatever else is no answer: MalformedAnswer, and nothing else is raised.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, Final

from qubix.chains.qubic import identity
from qubix.chains.qubic.errors import MalformedAnswer
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.errors import Invalid

U32_MAX: Final = 2**32 - 1
I64_MAX: Final = 2**63 - 1

_DIGITS: Final = re.compile(r"[0-9]{1,20}")
_IDENTITY: Final = re.compile(r"[A-Z]{60}")
_TX_ID: Final = re.compile(r"[a-z]{60}")


@dataclass(frozen=True, slots=True)
class TickInfo:
    """Where the network is: its tick (the head), the epoch, and the epoch's first tick; duration, the last tick's, in seconds."""

    tick: int
    epoch: int
    initial_tick: int
    duration_s: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What an identity has, after all ticks up to valid_for_tick, and what it ever received and sent (its counters).

    Args: age_s, seconds since we asked for it.
    """

    identity: str
    amount: int
    valid_for_tick: int
    incoming_amount: int
    outgoing_amount: int
    incoming_transfers: int
    outgoing_transfers: int
    latest_incoming_tick: int
    latest_outgoing_tick: int
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """An endpoint has handed the transaction on to `peers` nodes. That is not acceptance by the network: nodes drop in silence."""

    tx_id: str
    endpoint: str
    peers: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An endpoint will not hand the transaction on, and said so to every time that it was sent in this call. Earlier calls may have got through."""

    tx_id: str
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """It was sent and may have been handed on: no answer, or one that does not say."""

    tx_id: str
    endpoint: str
    reason: str


Broadcast = Accepted | Refused | Ambiguous


@dataclass(frozen=True, slots=True)
class ArchivedTransaction:
    """A transaction as an archive shows it.

    Args: money_flew, a hint and no proof: one node's, wrong in both directions; None if it was left out. timestamp_ms, since 1970.
    """

    id: str
    source: str
    destination: str
    amount: int
    tick: int
    input_type: int
    payload: bytes
    signature: bytes
    money_flew: bool | None
    timestamp_ms: int

    def is_genuine(self) -> bool:
        """Whether the id is that of these very fields: an archive cannot show another amount or payee under the id of ours."""
        try:
            return self.rebuilt().id == self.id
        except Invalid:
            return False

    def is_signed(self) -> bool:
        """Whether its source has signed it: an archive can make up a transaction and its id, and no signature."""
        return self.is_genuine() and self.rebuilt().verify()

    def rebuilt(self) -> Transaction:
        """The transaction of these fields.

        Raises: InvalidIdentity, InvalidTransaction if there is none.
        """
        source, destination = identity.decode(self.source), identity.decode(self.destination)
        return Transaction(source, destination, self.amount, self.tick, self.input_type, self.payload, self.signature)


@dataclass(frozen=True, slots=True)
class LastProcessed:
    """How far the archive has come: tick, its epoch, the first tick of its interval, and the last one whose event logs are in."""

    tick: int
    epoch: int
    interval_initial_tick: int
    log_tick: int


@dataclass(frozen=True, slots=True)
class TickInterval:
    """An unbroken run of ticks that the archive has, both ends included."""

    epoch: int
    first_tick: int
    last_tick: int

    def __contains__(self, tick: int) -> bool:
        return self.first_tick <= tick <= self.last_tick


@dataclass(frozen=True, slots=True)
class TickData:
    """What the computors signed for a tick: which transactions it has."""

    tick: int
    epoch: int
    transaction_ids: frozenset[str]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class QuTransfer:
    """One movement of money, by the event log of the tick that executed it."""

    source: str
    destination: str
    amount: int


@dataclass(frozen=True, slots=True)
class Transfers:
    """All movements of money that a transaction caused.

    Args: complete, whether none is missing from the answer; valid_for_tick, 0 if it was not said.
    """

    tx_id: str
    transfers: tuple[QuTransfer, ...]
    complete: bool
    valid_for_tick: int = field(default=0)


def tick_info(answer: object) -> TickInfo:
    """GET live/v1/tick-info."""
    fields = _Fields(_unwrapped(answer, "tickInfo"))
    return TickInfo(
        fields.whole("tick", lowest=1), fields.whole("epoch", highest=65535), fields.whole("initialTick"), fields.whole("duration")
    )


def balance(answer: object, asked: str) -> Balance:
    """GET live/v1/balances/{asked}."""
    fields = _Fields(_unwrapped(answer, "balance", inner="validForTick"))
    if fields.text("id") != asked:
        raise MalformedAnswer("a balance of another identity")
    return Balance(
        asked,
        fields.whole("balance", highest=I64_MAX),
        fields.whole("validForTick", lowest=1),
        fields.whole("incomingAmount", highest=I64_MAX),
        fields.whole("outgoingAmount", highest=I64_MAX),
        fields.whole("numberOfIncomingTransfers"),
        fields.whole("numberOfOutgoingTransfers"),
        fields.whole("latestIncomingTransferTick"),
        fields.whole("latestOutgoingTransferTick"),
    )


def broadcast_peers(answer: object, asked: str) -> int:
    """POST live/v1/broadcast-transaction: how many nodes got it."""
    fields = _Fields(answer)
    if fields.text("transactionId") != asked:
        raise MalformedAnswer("the answer to another transaction")
    return fields.whole("peersBroadcasted")


def contract_answer(answer: object) -> bytes:
    """POST live/v1/querySmartContract."""
    return _Fields(answer).octets("responseData")


def last_processed(answer: object) -> LastProcessed:
    """GET query/v1/getLastProcessedTick."""
    fields = _Fields(answer)
    return LastProcessed(
        fields.whole("tickNumber", lowest=1),
        fields.whole("epoch", highest=65535),
        fields.whole("intervalInitialTick"),
        fields.whole("lastProcessedLogTick"),
    )


def tick_intervals(answer: object) -> tuple[TickInterval, ...]:
    """GET query/v1/getProcessedTickIntervals."""
    found = []
    for item in _list(answer, "processedTickIntervals"):
        fields = _Fields(item)
        interval = TickInterval(
            fields.whole("epoch", highest=65535), fields.whole("firstTick", lowest=1), fields.whole("lastTick", lowest=1)
        )
        if interval.last_tick < interval.first_tick:
            raise MalformedAnswer("an interval that ends before it begins")
        found.append(interval)
    return tuple(found)


def transaction(answer: object, asked: str) -> ArchivedTransaction:
    """POST query/v1/getTransactionByHash."""
    found = _transaction(_unwrapped(answer, "transaction"))
    if found.id != asked:
        raise MalformedAnswer("another transaction than the one asked for")
    return found


def transactions_of_tick(answer: object, tick: int) -> tuple[ArchivedTransaction, ...]:
    """POST query/v1/getTransactionsForTick."""
    found = tuple(_transaction(item) for item in _list(answer, "transactions"))
    if any(shown.tick != tick for shown in found):
        raise MalformedAnswer("transactions of another tick")
    return found


def tick_data(answer: object, asked: int) -> TickData | None:
    """POST query/v1/getTickData; None for a tick without any, an empty one."""
    if isinstance(answer, dict) and (not answer or ("tickData" in answer and answer["tickData"] is None)):
        return None
    fields = _Fields(_unwrapped(answer, "tickData"))
    if fields.whole("tickNumber") != asked:
        raise MalformedAnswer("the data of another tick")
    ids = frozenset(_matching(_TX_ID, found, "transactionHashes") for found in fields.items("transactionHashes"))
    return TickData(asked, fields.whole("epoch", highest=65535), ids, fields.whole("timestamp", highest=I64_MAX))


def transfers(answer: object, asked: str) -> Transfers:
    """POST query/v1/getEventLogs for one transaction's QU transfers."""
    fields = _Fields(answer)
    # An answer may bring a row twice; two equal movements differ by their log's id, so that alone tells them apart.
    found: dict[tuple[object, QuTransfer], QuTransfer] = {}
    for item in fields.items("eventLogs"):
        event = _Fields(item)
        if event.has("transactionHash") and event.text("transactionHash") != asked:
            raise MalformedAnswer("the events of another transaction")
        moved = _Fields(event.of("quTransfer"))
        transfer = QuTransfer(moved.identity("source"), moved.identity("destination"), moved.whole("amount", highest=I64_MAX))
        found[event.whole("logId", highest=I64_MAX), transfer] = transfer
    hits = _Fields(fields.of("hits")) if fields.has("hits") else None
    total = hits.whole("total") if hits else len(found)
    return Transfers(asked, tuple(found.values()), total <= len(found), fields.whole("validForTick"))


def _transaction(item: object) -> ArchivedTransaction:
    fields = _Fields(item)
    return ArchivedTransaction(
        _matching(_TX_ID, fields.of("hash"), "hash"),
        fields.identity("source"),
        fields.identity("destination"),
        fields.whole("amount", highest=I64_MAX),
        fields.whole("tickNumber", lowest=1),
        fields.whole("inputType", highest=65535),
        fields.octets("inputData"),
        fields.octets("signature"),
        fields.flag("moneyFlew"),
        fields.whole("timestamp", highest=I64_MAX),
    )


class _Fields:
    """An object of the answer. A field that is missing or null is zero, empty or unknown, as in proto3."""

    def __init__(self, found: object) -> None:
        if not isinstance(found, dict):
            raise MalformedAnswer("an object was due")
        self._found: dict[str, Any] = found

    def of(self, name: str) -> object:
        return self._found.get(name)

    def has(self, name: str) -> bool:
        return self._found.get(name) is not None

    def whole(self, name: str, *, lowest: int = 0, highest: int = U32_MAX) -> int:
        found = self._found.get(name)
        if found is None:
            found = 0
        elif isinstance(found, str) and _DIGITS.fullmatch(found):
            found = int(found)
        if type(found) is not int or not lowest <= found <= highest:
            raise MalformedAnswer(f"{name} is no whole number from {lowest} to {highest}")
        return found

    def text(self, name: str) -> str:
        found = self._found.get(name)
        if not isinstance(found, str):
            raise MalformedAnswer(f"{name} is no text")
        return found

    def flag(self, name: str) -> bool | None:
        found = self._found.get(name)
        if found is not None and not isinstance(found, bool):
            raise MalformedAnswer(f"{name} is neither true nor false")
        return found

    def identity(self, name: str) -> str:
        return _matching(_IDENTITY, self._found.get(name), name)

    def octets(self, name: str) -> bytes:
        found = self._found.get(name)
        if found is None:
            return b""
        try:
            return base64.b64decode(found, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise MalformedAnswer(f"{name} is not base64") from error

    def items(self, name: str) -> list[Any]:
        found = self._found.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise MalformedAnswer(f"{name} is no list")
        return found


def _unwrapped(answer: object, name: str, *, inner: str | None = None) -> object:
    """What stands under `name`, or the answer itself where a gateway has unwrapped it.

    Args: inner, a field of the bare object where `name` is one of its fields too (a balance's balance).
    """
    if isinstance(answer, dict) and name in answer and (inner is None or inner not in answer):
        return answer[name]
    return answer


def _list(answer: object, name: str) -> list[Any]:
    if isinstance(answer, list):
        return answer
    # An object without the name is not taken for an empty list: "nothing in this tick" is half of a proof.
    if not isinstance(answer, dict) or name not in answer:
        raise MalformedAnswer(f"neither a list nor {name}")
    return _Fields(answer).items(name)


def _matching(pattern: re.Pattern[str], found: object, name: str) -> str:
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise MalformedAnswer(f"{name} has other letters than it may")
    return found
