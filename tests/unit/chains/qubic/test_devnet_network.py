"""Ledger, store and faults together, without a socket: what was answered is in the file, and an opened file is the same network."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.devnet import queries, wire
from qubix.chains.qubic.devnet.faults import Fault, Kind
from qubix.chains.qubic.devnet.ledger import FIRST_TICK, Fate
from qubix.chains.qubic.devnet.network import FAUCET_SEED, Network
from qubix.chains.qubic.devnet.refusal import Code, Refusal
from qubix.chains.qubic.devnet.rpc import Rpc
from qubix.chains.qubic.devnet.server import tick_on
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.errors import Conflict
from tests.unit.chains.qubic import vectors
from tests.unit.chains.qubic.devnet_world import BERT, CARL, NOW_MS, QX

SUBSEED, KEY = vectors.SUBSEED, vectors.PUBLIC_KEY


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network on a fresh folder; its clock stands."""
    made = Network.open(tmp_path, now_ms=lambda: NOW_MS)
    yield made
    made.close()


def funded(network: Network, amount: int = 1000) -> None:
    network.fund(KEY, amount)
    network.step(3)


def paying(network: Network, amount: int = 5, ahead: int = 3, payload: bytes = b"") -> Transaction:
    return Transaction(KEY, BERT, amount, network.ledger.tick + ahead, payload=payload).signed_by(SUBSEED)


def reopened(network: Network, folder: Path) -> Network:
    network.close()
    return Network.open(folder, now_ms=lambda: NOW_MS)


def test_the_faucets_seed_is_public_and_holds_all_money(network: Network) -> None:
    assert keys.public_key_from_subseed(keys.subseed_from_seed(FAUCET_SEED)) == network.faucet_key
    assert network.ledger.account(network.faucet_key).balance == network.ledger.total() == int(network.status()["supply"])


def test_a_gift_is_a_transaction_like_any_other(network: Network) -> None:
    first, second = network.fund(KEY, 1000), network.fund(KEY, 1000)
    assert first.id != second.id
    assert network.ledger.account(KEY).balance == 0
    network.step(3)
    assert network.ledger.account(KEY).balance == 2000
    assert [row["id"] for row in network.store.rows("SELECT id FROM transactions ORDER BY place")] == [first.id, second.id]


def test_a_gift_that_the_faucet_has_not_is_refused(network: Network) -> None:
    with pytest.raises(Refusal, match="has not so much"):
        network.fund(KEY, 10**15)


def test_a_broadcast_is_answered_by_its_id_however_often_it_comes(network: Network) -> None:
    funded(network)
    signed = paying(network)
    assert [network.broadcast(signed.to_bytes()).id for _ in range(3)] == [signed.id] * 3
    network.step(3)
    assert network.ledger.account(BERT).balance == 5


@pytest.mark.parametrize("torn", ["short", "signature", "size", "amount", "twin", "contract", "late"])
def test_what_is_no_valid_transaction_is_refused_aloud(torn: str, network: Network) -> None:
    funded(network)
    found = bytearray(paying(network, ahead=0 if torn == "late" else 3).to_bytes())
    match torn:
        case "short":
            del found[-1]
        case "signature":
            found[-64] ^= 1
        case "size":
            found[78:80] = (1025).to_bytes(2, "little")
        case "amount":
            found[64:72] = (-1).to_bytes(8, "little", signed=True)
        case "twin":
            found[-32:] = (int.from_bytes(found[-32:], "little") + curve.ORDER).to_bytes(32, "little")
        case "contract":
            found[:32] = QX
    with pytest.raises(Refusal) as refused:
        network.broadcast(bytes(found))
    assert (refused.value.code, refused.value.status) == (Code.INVALID_ARGUMENT, 400)
    assert network.status()["pending"] == 0


def test_a_dropped_broadcast_looks_like_any_other_and_never_executes(network: Network) -> None:
    funded(network)
    network.faults.arm(Fault(Kind.DROP, next=1))
    signed = paying(network)
    assert {network.broadcast(signed.to_bytes()).id for _ in range(2)} == {signed.id}
    other = paying(network, 6)
    assert network.broadcast(other.to_bytes()).fate is Fate.POOLED
    network.step(3)
    assert network.ledger.account(BERT).incoming == 6


def test_an_opened_file_is_the_same_network(network: Network, tmp_path: Path) -> None:
    funded(network)
    network.broadcast(paying(network, 5, 2).to_bytes())
    network.broadcast(Transaction(KEY, identity.NULL, 7, network.ledger.tick + 2).signed_by(SUBSEED).to_bytes())
    network.step(2)
    network.skip(10)
    network.set_lag(5, 1)
    for ahead in (4, 2, 3):
        network.broadcast(paying(network, ahead, ahead).to_bytes())
    state = network.ledger.state
    again = reopened(network, tmp_path)
    assert again.ledger.state == state
    assert [list(found) for found in again.ledger.state.pool.values()] == [list(found) for found in state.pool.values()]
    again.change_epoch(5)
    state = again.ledger.state
    last = reopened(again, tmp_path)
    assert last.ledger.state == state
    last.close()


def test_two_networks_on_one_folder_are_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="cannot be opened"):
        Network.open(tmp_path)


def test_what_cannot_be_written_did_not_happen(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    funded(network)
    signed = paying(network)
    before = network.ledger.tick

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setattr(network.store, "write_pooled", full)
    monkeypatch.setattr(network.store, "write_tick", full)
    for attempt in (lambda: network.broadcast(signed.to_bytes()), network.step):
        with pytest.raises(Refusal) as refused:
            attempt()
        assert refused.value.code is Code.INTERNAL
    monkeypatch.undo()
    assert (network.ledger.tick, network.status()["pending"]) == (before, 0)
    network.broadcast(signed.to_bytes())
    network.step(3)
    assert network.ledger.account(BERT).balance == 5


def test_a_stale_node_tells_an_earlier_tick_and_its_balances(network: Network) -> None:
    funded(network)
    network.broadcast(paying(network, 5, 2).to_bytes())
    network.step(2)
    rpc, now = Rpc(network), network.ledger.tick
    network.faults.arm(Fault(Kind.STALE, next=1, area="live", ticks=2))
    stale = network.view("a", "live")
    assert rpc.tick_info(stale, {})["tickInfo"]["tick"] == now - 2
    balance = rpc.balance(stale, {"id": identity.encode(BERT)})["balance"]
    assert (balance["balance"], balance["validForTick"]) == ("0", now - 2)
    fresh = rpc.balance(network.view("a", "live"), {"id": identity.encode(BERT)})["balance"]
    assert (fresh["balance"], fresh["validForTick"]) == ("5", now)


def test_a_stale_node_after_a_restart_tells_nothing_that_it_does_not_know(network: Network, tmp_path: Path) -> None:
    funded(network)
    again = reopened(network, tmp_path)
    again.faults.arm(Fault(Kind.STALE, ticks=3))
    assert again.view("a", "live").tick == again.ledger.tick
    again.close()


def paid_many(network: Network) -> tuple[Rpc, list[Transaction]]:
    """Twelve payments in three ticks, archived."""
    network.set_lag(0, 0)
    funded(network)
    sent = []
    for ahead in (2, 3, 4):
        for amount in range(1, 5):
            sent.append(paying(network, amount * ahead, ahead, bytes([amount])))
            network.broadcast(sent[-1].to_bytes())
    network.step(4)
    return Rpc(network), sent


def test_transactions_of_an_identity_come_in_pages_the_newest_first(network: Network) -> None:
    rpc, sent = paid_many(network)
    view, bert = network.view("a", "query"), identity.encode(BERT)
    first = rpc.transactions_for_identity(view, {"identity": bert})
    rest = rpc.transactions_for_identity(view, {"identity": bert, "pagination": {"offset": 10, "size": 1000}})
    assert [found["hash"] for found in first["transactions"] + rest["transactions"]] == [signed.id for signed in reversed(sent)]
    assert (first["hits"], rest["hits"]) == ({"total": 12, "from": 0, "size": 10}, {"total": 12, "from": 10, "size": 2})


def test_transactions_are_filtered_by_what_the_archive_allows(network: Network) -> None:
    rpc, sent = paid_many(network)
    view, anna, bert = network.view("a", "query"), identity.encode(KEY), identity.encode(BERT)

    def count(**asked: Any) -> int:
        return len(rpc.transactions_for_identity(view, {"identity": anna, "pagination": {"size": 100}, **asked})["transactions"])

    assert count() == 13
    assert count(filters={"source": anna}) == count(filters={"destination": bert}) == count(exclude={"destination": anna}) == 12
    assert count(filters={"amount": "12"}) == 2
    assert count(filters={"tickNumber": str(sent[0].tick)}) == 4
    assert count(ranges={"tickNumber": {"gte": str(sent[0].tick), "lt": str(sent[-1].tick)}}) == 8
    assert count(ranges={"amount": {"gt": "12", "lte": "18446744073709551615"}}) == 2
    assert count(filters={"inputType": "1"}) == 0
    for_tick = rpc.transactions_for_tick(view, {"tickNumber": sent[0].tick, "filters": {"amount": "2"}})
    assert [found["hash"] for found in for_tick] == [sent[0].id]


@pytest.mark.parametrize(
    "asked",
    [
        {"filters": {"moneyFlew": "true"}},
        {"filters": {"amount": 5}},
        {"filters": {"amount": "-5"}},
        {"filters": {"source": "ABC"}},
        {"filters": "x"},
        {"filters": {"source": ",".join(["A" * 60] * 6)}},
        {"exclude": {"amount": "5"}},
        {"ranges": {"amount": {}}},
        {"ranges": {"amount": {"gt": "1", "gte": "1"}}},
        {"ranges": {"amount": {"above": "1"}}},
        {"ranges": {"source": {"gt": "1"}}},
        {"ranges": {"amount": {"gt": "1; DROP TABLE pool"}}},
        {"pagination": {"size": 1001}},
        {"pagination": {"offset": 9_999, "size": 2}},
        {"pagination": {"offset": -1}},
        {"identity": "a" * 60},
        {"identity": 5},
    ],
    ids=json.dumps,
)
def test_a_malformed_question_is_refused(asked: dict[str, Any], network: Network) -> None:
    with pytest.raises(Refusal) as refused:
        Rpc(network).transactions_for_identity(network.view("a", "query"), {"identity": identity.encode(KEY), **asked})
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_numbers_are_read_as_protobufs_json_writes_them() -> None:
    assert [queries.unsigned(found, "n", 2**32 - 1) for found in (7, "7", "4294967295")] == [7, 7, 2**32 - 1]
    for wrong in (-1, True, 1.5, None, "", "+7", "7.0", "٧", 2**32, "4294967296", "0" * 11):
        with pytest.raises(Refusal):
            queries.unsigned(wrong, "n", 2**32 - 1)


def test_events_tell_every_movement_of_a_send_many(network: Network) -> None:
    network.set_lag(0, 0)
    funded(network)
    payload = BERT + CARL + bytes(23 * 32) + b"".join(n.to_bytes(8, "little") for n in (100, 200)) + bytes(23 * 8)
    signed = Transaction(KEY, wire.QUTIL, 310, network.ledger.tick + 2, 1, payload).signed_by(SUBSEED)
    network.broadcast(signed.to_bytes())
    network.step(2)
    rpc, view = Rpc(network), network.view("a", "query")
    logs = rpc.event_logs(view, {"filters": {"transactionHash": signed.id, "logType": "0"}})
    moved = [(found["quTransfer"]["destination"], found["quTransfer"]["amount"]) for found in reversed(logs["eventLogs"])]
    assert moved == [(identity.encode(wire.QUTIL), "310"), (identity.encode(BERT), "100"), (identity.encode(CARL), "200")]
    assert rpc.event_logs(view, {"filters": {"transactionHash": signed.id}})["eventLogs"][0]["burning"]["amount"] == "10"
    assert logs["validForTick"] == network.ledger.tick


def test_the_archive_lies_about_a_transaction_always_in_the_same_way(network: Network) -> None:
    rpc, sent = paid_many(network)
    view, one = network.view("a", "query"), {"hash": sent[0].id}

    def money_flew() -> list[bool]:
        return [found["moneyFlew"] for tick in (2, 1, 0) for found in for_tick(network.ledger.tick - tick)]

    def for_tick(number: int) -> list[dict[str, Any]]:
        return rpc.transactions_for_tick(view, {"tickNumber": number})

    network.faults.arm(Fault(Kind.MONEY_FLEW, p=0.5))
    lies = money_flew()
    assert lies == money_flew()
    assert 0 < sum(lies) < 12
    for mode, told in (("false", False), ("true", True), ("inverted", False)):
        network.faults.clear()
        network.faults.arm(Fault(Kind.MONEY_FLEW, mode=mode))  # type: ignore[arg-type]
        assert money_flew() == [told] * 12
    network.faults.clear()
    network.faults.arm(Fault(Kind.MONEY_FLEW, mode="missing"))
    assert "moneyFlew" not in rpc.transaction_by_hash(view, one)
    network.faults.clear()
    network.faults.arm(Fault(Kind.FORGET, next=1))
    with pytest.raises(Refusal) as refused:
        rpc.transaction_by_hash(view, one)
    assert refused.value.code is Code.NOT_FOUND
    assert len(for_tick(sent[0].tick)) == 3
    assert sent[0].id not in rpc.tick_data(view, {"tickNumber": sent[0].tick})["tickData"]["transactionHashes"]
    assert rpc.event_logs(view, {"filters": {"transactionHash": sent[0].id}})["eventLogs"] == []
    network.faults.clear()
    network.faults.arm(Fault(Kind.DUPLICATE))
    assert [found["hash"] for found in for_tick(sent[0].tick)] == [signed.id for signed in reversed(sent[:4]) for _ in range(2)]


class Over(Exception):
    """The test's time is up."""


class StumblingClock:
    """A clock that sleeps as told, but once for a minute. Args: sleeps, after which it is Over."""

    def __init__(self, sleeps: int) -> None:
        self.at, self.left, self.slept = 0.0, sleeps, list[float]()

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, delay_s: float) -> None:
        if not self.left:
            raise Over
        self.left -= 1
        self.slept.append(delay_s)
        self.at += 60 if len(self.slept) == 2 else delay_s


async def test_ticks_come_by_the_clock_and_what_was_slept_through_is_not_caught_up(network: Network) -> None:
    clock = StumblingClock(4)
    with pytest.raises(Over):
        await tick_on(network, clock, 1.0)
    assert network.ledger.tick == FIRST_TICK + 4
    assert clock.slept == [1.0, 1.0, 0.0, 1.0]


async def test_a_network_that_stands_still_ticks_by_the_admins_steps_alone(network: Network) -> None:
    network.faults.arm(Fault(Kind.HALT, next=3))
    with pytest.raises(Over):
        await tick_on(network, StumblingClock(3), 1.0)
    assert network.ledger.tick == FIRST_TICK
    network.step()
    with pytest.raises(Over):
        await tick_on(network, StumblingClock(2), 1.0)
    assert network.ledger.tick == FIRST_TICK + 3


def test_the_first_tick_of_all_is_there(network: Network) -> None:
    assert Rpc(network).tick_data(network.view("a", "query"), {"tickNumber": FIRST_TICK})["tickData"]["transactionHashes"] == []
