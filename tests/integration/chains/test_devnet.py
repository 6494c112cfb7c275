"""The devnet over a real socket: the RPC's shapes, codes and silences, each fault, and what survives its death."""

from __future__ import annotations

import base64
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix.chains.qubic import identity, keys, qutil
from qubix.chains.qubic.fourq import curve
from tests.integration.chains.devnet_process import Devnet, Person

PEOPLE = map(Person, itertools.count(1))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    made = Devnet(tmp_path_factory.mktemp("devnet"), 0, "--legacy")
    yield made
    assert made.stop() == 0


@pytest.fixture
def devnet(process: Devnet) -> Devnet:
    """The shared process without faults, at its default lag."""
    process.order("/faults/clear", seed="qubix")
    process.order("/archive", lag=3)
    return process


@pytest.fixture
def payer(devnet: Devnet) -> Person:
    """Somebody new with 1 000 000."""
    person = next(PEOPLE)
    devnet.fund(person, 1_000_000)
    return person


@pytest.fixture
def payee() -> Person:
    return next(PEOPLE)


def code_of(answer: httpx.Response) -> tuple[int, int]:
    document = answer.json()
    assert set(document) == {"code", "message", "details"}
    return answer.status_code, document["code"]


def test_tick_and_balances_have_the_rpcs_shapes(devnet: Devnet, payer: Person, payee: Person) -> None:
    info = devnet.live("tick-info")["tickInfo"]
    assert {name: type(value) for name, value in info.items()} == dict.fromkeys(("tick", "duration", "epoch", "initialTick"), int)
    assert devnet.balance(payer) == {
        "id": payer.identity,
        "balance": "1000000",
        "validForTick": info["tick"],
        "latestIncomingTransferTick": info["tick"],
        "latestOutgoingTransferTick": 0,
        "incomingAmount": "1000000",
        "outgoingAmount": "0",
        "numberOfIncomingTransfers": 1,
        "numberOfOutgoingTransfers": 0,
    }
    assert devnet.balance(payee)["balance"] == "0"


def test_a_payment_is_broadcast_executed_and_archived_in_the_rpcs_shapes(devnet: Devnet, payer: Person, payee: Person) -> None:
    signed = payer.pays(payee.key, 1234, devnet.tick + 5, payload=b"qubix:job:1")
    encoded = base64.b64encode(signed.to_bytes()).decode()
    answer = devnet.send(signed)
    assert answer.json() == {"peersBroadcasted": 3, "encodedTransaction": encoded, "transactionId": signed.id}
    devnet.step(7)
    assert code_of(devnet.http.post("/query/v1/getTransactionByHash", json={"hash": signed.id})) == (404, 5)
    early = devnet.http.post("/query/v1/getTransactionsForTick", json={"tickNumber": signed.tick})
    assert code_of(early) == (400, 9)
    assert [detail["tickNumber"] for detail in early.json()["details"]] == [signed.tick - 1]
    devnet.step(1)
    archived = devnet.query("getTransactionByHash", hash=signed.id)
    assert archived | {"timestamp": ""} == {
        "hash": signed.id,
        "amount": "1234",
        "source": payer.identity,
        "destination": payee.identity,
        "tickNumber": signed.tick,
        "timestamp": "",
        "inputType": 0,
        "inputSize": 11,
        "inputData": base64.b64encode(b"qubix:job:1").decode(),
        "signature": base64.b64encode(signed.signature).decode(),
        "moneyFlew": True,
    }
    assert abs(int(archived["timestamp"]) - time.time() * 1000) < 60_000
    assert devnet.query("getTransactionsForTick", tickNumber=signed.tick) == [archived]
    assert devnet.query("getTickData", tickNumber=signed.tick)["tickData"]["transactionHashes"] == [signed.id]
    found = devnet.query("getTransactionsForIdentity", identity=payee.identity)
    assert found == {"validForTick": signed.tick, "hits": {"total": 1, "from": 0, "size": 1}, "transactions": [archived]}
    logs = devnet.query("getEventLogs", filters={"transactionHash": signed.id, "logType": "0"})
    (event,) = logs["eventLogs"]
    assert event["quTransfer"] == {"source": payer.identity, "destination": payee.identity, "amount": "1234"}
    assert (logs["hits"]["total"], logs["validForTick"]) == (1, signed.tick)
    processed = devnet.http.get("/query/v1/getLastProcessedTick").json()
    assert (processed["tickNumber"], processed["lastProcessedLogTick"]) == (signed.tick, signed.tick)
    assert processed.keys() == {"tickNumber", "epoch", "intervalInitialTick", "lastProcessedLogTick"}


def test_the_legacy_shapes_are_there_on_request(devnet: Devnet, payer: Person, payee: Person) -> None:
    signed = payer.pays(payee.key, 5, devnet.tick + 2, payload=b"\x01\x02")
    devnet.send(signed)
    devnet.step(5)
    status = devnet.http.get(f"/v1/tx-status/{signed.id}").json()
    assert status == {"transactionStatus": {"txId": signed.id, "moneyFlew": True}}
    document = devnet.http.get(f"/v2/transactions/{signed.id}").json()
    assert (document["transaction"]["inputHex"], document["transaction"]["destId"]) == ("0102", payee.identity)


def test_a_send_many_is_one_transaction_and_many_events(devnet: Devnet, payer: Person) -> None:
    payees = [next(PEOPLE) for _ in range(3)]
    asked = devnet.http.post("/live/v1/querySmartContract", json={"contractIndex": 4, "inputType": 1, "inputSize": 0, "requestData": ""})
    fee = int.from_bytes(base64.b64decode(asked.json()["responseData"]), "little")
    order = qutil.send_many(payer.key, [(payee.key, 100) for payee in payees], tick=devnet.tick + 2, fee=fee).signed_by(payer.subseed)
    wrong = qutil.send_many(payer.key, [(payees[0].key, 7)], tick=order.tick, fee=fee + 1).signed_by(payer.subseed)
    for signed in (order, wrong):
        devnet.send(signed)
    devnet.step(5)
    assert [devnet.balance(payee)["balance"] for payee in payees] == ["100"] * 3
    assert devnet.balance(payer)["balance"] == str(1_000_000 - 300 - fee)
    assert [found["moneyFlew"] for found in devnet.query("getTransactionsForTick", tickNumber=order.tick)] == [True, False]
    logs = devnet.query("getEventLogs", filters={"transactionHash": order.id, "logType": "0"})["eventLogs"]
    assert len(logs) == 4
    back = devnet.query("getEventLogs", filters={"transactionHash": wrong.id, "logType": "0"})["eventLogs"]
    assert [event["quTransfer"]["amount"] for event in back] == [str(7 + fee + 1)] * 2


@pytest.mark.parametrize(
    "wrong", ["base64", "short", "long", "amount", "signature", "twin", "contract", "neutral point", "current tick", "no JSON", "a list"]
)
def test_a_wrong_broadcast_gets_400_with_code_3(wrong: str, devnet: Devnet, payer: Person, payee: Person) -> None:
    signed = payer.pays(payee.key, 5, devnet.tick + (0 if wrong == "current tick" else 5))
    encoded = bytearray(signed.to_bytes())
    s = int.from_bytes(encoded[-32:], "little")
    match wrong:
        case "short":
            del encoded[-1]
        case "long":
            encoded += b"\0"
        case "amount":
            encoded[64:72] = (10**15 + 1).to_bytes(8, "little")
        case "signature":
            encoded[-64] ^= 1
        case "twin":
            encoded[-32:] = (s + curve.ORDER).to_bytes(32, "little")
        case "contract":
            encoded[:32] = qutil.ADDRESS
        case "neutral point":
            encoded[:32] = identity.contract(1)
    if wrong == "base64":
        answer = devnet.http.post("/live/v1/broadcast-transaction", json={"encodedTransaction": "a*b"})
    elif wrong in ("no JSON", "a list"):
        answer = devnet.http.post("/live/v1/broadcast-transaction", content=b"{" if wrong == "no JSON" else b"[]")
    else:
        answer = devnet.send(bytes(encoded))
    assert code_of(answer) == (400, 3)


def test_what_nodes_drop_in_silence_is_answered_like_the_rest(devnet: Devnet, payer: Person, payee: Person) -> None:
    poor, now = next(PEOPLE), devnet.tick
    silent = [poor.pays(payee.key, 0, now + 5), payer.pays(payee.key, 1, now + 1), payer.pays(payee.key, 1, now + 1715)]
    for signed in silent:
        answer = devnet.send(signed)
        assert (answer.status_code, answer.json()["transactionId"]) == (200, signed.id)
    assert devnet.admin.get("/status").json()["pending"] == 0


def test_the_same_bytes_may_come_again_and_execute_once(devnet: Devnet, payer: Person, payee: Person) -> None:
    signed = payer.pays(payee.key, 7, devnet.tick + 3)
    assert {devnet.send(signed).json()["transactionId"] for _ in range(3)} == {signed.id}
    devnet.step(3)
    assert code_of(devnet.send(signed)) == (400, 3)
    assert devnet.balance(payee)["incomingAmount"] == "7"


def test_skipped_ticks_lead_to_the_next_one_and_lose_what_was_due(devnet: Devnet, payer: Person, payee: Person) -> None:
    now = devnet.tick
    lost = payer.pays(payee.key, 7, now + 5)
    devnet.send(lost)
    assert devnet.order("/skip", ticks=10)["tick"] == now + 11
    devnet.step(3)
    answer = devnet.http.post("/query/v1/getTransactionsForTick", json={"tickNumber": now + 5})
    assert code_of(answer) == (400, 11)
    assert answer.json()["details"][0]["nextTickNumber"] == now + 11
    assert code_of(devnet.http.post("/query/v1/getTickData", json={"tickNumber": 5})) == (400, 11)
    intervals = devnet.http.get("/query/v1/getProcessedTickIntervals").json()
    assert [(found["firstTick"], found["lastTick"]) for found in intervals[-1:]] == [(now + 11, now + 11)]
    assert intervals[-2]["lastTick"] == now
    assert devnet.balance(payee)["incomingAmount"] == "0"


def test_an_epochs_change_jumps_and_drops_what_is_pending(devnet: Devnet, payer: Person, payee: Person) -> None:
    before = devnet.live("tick-info")["tickInfo"]
    devnet.send(payer.pays(payee.key, 7, before["tick"] + 1500))
    after = devnet.order("/epoch", ticks=1000)
    assert after == {"tick": before["tick"] + 1001, "epoch": before["epoch"] + 1}
    info = devnet.live("tick-info")["tickInfo"]
    assert (info["epoch"], info["initialTick"]) == (after["epoch"], after["tick"])
    devnet.step(520)
    assert devnet.balance(payee)["balance"] == "0"
    assert devnet.http.get("/query/v1/getProcessedTickIntervals").json()[-1]["epoch"] == after["epoch"]


def test_unknown_paths_methods_and_malformed_questions_have_their_codes(devnet: Devnet, payer: Person) -> None:
    http = devnet.http
    assert code_of(http.get("/v1/status")) == (404, 5)
    assert code_of(http.post("/live/v1/tick-info")) == (501, 12)
    assert code_of(http.get("/live/v1/balances/ABC")) == (400, 3)
    assert code_of(http.post("/query/v1/getTransactionByHash", json={"hash": payer.identity})) == (400, 3)
    assert code_of(http.post("/query/v1/getTransactionsForTick", json={"tickNumber": -1})) == (400, 3)
    assert code_of(http.post("/query/v1/getTransactionsForIdentity", json={"identity": payer.identity, "pagination": {"size": 1001}})) == (
        400,
        3,
    )
    assert code_of(http.post("/query/v1/getTickData", content=b"{" + b" " * 70_000)) == (413, 3)
    assert code_of(http.post("/query/v1/getTickData", content=b"[" * 60_000)) == (400, 3)
    assert http.post("/live/v1/querySmartContract", json={"contractIndex": 9, "inputType": 1}).json() == {"responseData": ""}


def test_the_admin_is_nobody_without_the_token(devnet: Devnet) -> None:
    for token in (b"", b"Bearer wrong", "Bearer \u00e9".encode("latin-1")):
        answer = devnet.http.post("/admin/step", json={"ticks": 1}, headers={b"Authorization": token})
        assert code_of(answer) == (401, 16)
    assert Path(devnet.started["admin_token_file"]).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/step", {"ticks": 0}),
        ("/step", {"ticks": "1"}),
        ("/step", {"tick": 1}),
        ("/skip", {"ticks": 10**9}),
        ("/faucet", {"identity": "ABC", "amount": 1}),
        ("/faucet", {"amount": 1}),
        ("/archive", {"lag": -1}),
        ("/faults", {"kind": "earthquake"}),
        ("/faults", {"kind": "drop", "p": 2}),
    ],
)
def test_an_admins_mistake_is_told(path: str, body: dict[str, Any], devnet: Devnet) -> None:
    assert code_of(devnet.admin.post(path, json=body)) == (400, 3)


@pytest.mark.parametrize("answer", ["cut", "hang", "error"])
def test_an_ambiguous_broadcast_has_no_answer_and_executes(answer: str, devnet: Devnet, payer: Person, payee: Person) -> None:
    devnet.order("/faults", kind="ambiguous", next=1, answer=answer, hang_s=2)
    signed = payer.pays(payee.key, 9, devnet.tick + 3)
    if answer == "error":
        assert code_of(devnet.send(signed)) == (500, 13)
    else:
        with pytest.raises(httpx.TransportError):
            devnet.send(signed, timeout=0.3)
    assert devnet.send(signed).status_code == 200
    devnet.step(3)
    assert devnet.balance(payee)["incomingAmount"] == "9"


def test_a_dropped_broadcast_never_executes_however_often_it_is_sent(devnet: Devnet, payer: Person, payee: Person) -> None:
    devnet.order("/faults", kind="drop", next=1)
    signed = payer.pays(payee.key, 9, devnet.tick + 3)
    assert [devnet.send(signed).status_code for _ in range(3)] == [200, 200, 200]
    devnet.step(6)
    assert code_of(devnet.http.post("/query/v1/getTransactionByHash", json={"hash": signed.id})) == (404, 5)
    assert devnet.query("getTransactionsForTick", tickNumber=signed.tick) == []


def test_money_flew_may_be_wrong_in_both_directions(devnet: Devnet, payer: Person, payee: Person) -> None:
    paid, unpaid = payer.pays(payee.key, 9, devnet.tick + 3), payer.pays(payee.key, 2_000_000, devnet.tick + 3)
    for signed in (paid, unpaid):
        devnet.send(signed)
    devnet.step(6)
    devnet.order("/faults", kind="money_flew", mode="inverted")
    told = [devnet.query("getTransactionByHash", hash=signed.id)["moneyFlew"] for signed in (paid, unpaid)]
    assert told == [False, True]
    assert devnet.query("getEventLogs", filters={"transactionHash": unpaid.id})["eventLogs"] == []
    devnet.order("/faults/clear")
    devnet.order("/faults", kind="money_flew", mode="missing")
    assert "moneyFlew" not in devnet.query("getTransactionByHash", hash=paid.id)


def test_the_archives_lag_jumps_and_it_halts_until_the_ticks_are_there(devnet: Devnet) -> None:
    had = devnet.http.get("/query/v1/getLastProcessedTick").json()["tickNumber"]
    devnet.order("/archive", lag=10, log_lag=2)
    devnet.step(5)
    assert devnet.http.get("/query/v1/getLastProcessedTick").json()["tickNumber"] == had
    devnet.step(4)
    processed = devnet.http.get("/query/v1/getLastProcessedTick").json()
    assert (processed["tickNumber"], processed["lastProcessedLogTick"]) == (had + 2, had)


def test_ticks_go_backwards_where_a_stale_node_answers(devnet: Devnet) -> None:
    devnet.step(10)
    now, had = devnet.tick, devnet.http.get("/query/v1/getLastProcessedTick").json()["tickNumber"]
    devnet.order("/faults", kind="stale", next=2, ticks=4)
    assert devnet.tick == now - 4
    assert devnet.http.get("/query/v1/getLastProcessedTick").json()["tickNumber"] == had - 4
    assert devnet.tick == now


def test_a_limit_says_when_to_come_back(devnet: Devnet) -> None:
    devnet.order("/faults", kind="limit", next=1, retry_after_s=7)
    answer = devnet.http.get("/live/v1/tick-info")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert devnet.tick


def test_an_error_has_code_13_in_its_area_alone(devnet: Devnet, payer: Person, payee: Person) -> None:
    devnet.order("/faults", kind="error", area="broadcast")
    assert devnet.tick
    assert code_of(devnet.send(payer.pays(payee.key, 1, devnet.tick + 3))) == (500, 13)
    assert devnet.admin.get("/status").json()["pending"] == 0


def test_rows_come_twice_and_in_another_order(devnet: Devnet, payer: Person, payee: Person) -> None:
    sent = [payer.pays(payee.key, amount, devnet.tick + 2) for amount in (1, 2)]
    for signed in sent:
        devnet.send(signed)
    devnet.step(5)
    devnet.order("/faults", kind="duplicate")
    found = [row["hash"] for row in devnet.query("getTransactionsForTick", tickNumber=sent[0].tick)]
    assert found == [sent[1].id, sent[1].id, sent[0].id, sent[0].id]


def test_unreachable_for_some_ticks_and_then_back(devnet: Devnet) -> None:
    devnet.order("/faults", kind="unreachable", for_ticks=2)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            devnet.live("tick-info")
        devnet.step(1)
    assert devnet.tick


def test_one_door_lies_and_the_other_does_not(devnet: Devnet, payer: Person, payee: Person) -> None:
    signed = payer.pays(payee.key, 5, devnet.tick + 2)
    devnet.send(signed, door="/b")
    devnet.step(5)
    devnet.order("/faults", kind="forget", door="b")
    question = {"hash": signed.id}
    assert devnet.http.post("/query/v1/getTransactionByHash", json=question).status_code == 200
    assert code_of(devnet.http.post("/b/query/v1/getTransactionByHash", json=question)) == (404, 5)


def test_a_restart_goes_on_where_it_ended(tmp_path: Path, payee: Person) -> None:
    payer, devnet = Person(900), Devnet(tmp_path)
    devnet.fund(payer, 1000)
    signed = payer.pays(payee.key, 5, devnet.tick + 3)
    devnet.send(signed)
    before = devnet.admin.get("/status").json()
    assert devnet.stop() == 0
    again = Devnet(tmp_path)
    assert again.admin.get("/status").json() == before
    again.step(3)
    assert again.balance(payee)["balance"] == "5"
    again.stop()


def test_a_second_devnet_on_the_folder_ends_with_a_reason(process: Devnet) -> None:
    folder = Path(process.started["admin_token_file"]).parent
    command = [sys.executable, "-m", "qubix.chains.qubic.devnet", "--data-dir", str(folder), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "another devnet" in second.stderr


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_loses_nothing_that_it_acknowledged(seed: int, tmp_path: Path) -> None:
    chance, payer, payee = random.Random(seed), Person(901), Person(902)
    devnet = Devnet(tmp_path)
    devnet.fund(payer, 10**9)
    supply = devnet.admin.get("/status").json()["supply"]
    devnet.stop()
    acknowledged: dict[str, int] = {}
    late: dict[str, int] = {}
    seen = 0
    for _ in range(2):
        devnet = Devnet(tmp_path, 0.01)
        assert devnet.tick >= seen
        until = time.monotonic() + chance.uniform(0.1, 0.4)
        while time.monotonic() < until:
            signed = payer.pays(payee.key, len(acknowledged) + len(late) + 1, devnet.tick + chance.randint(20, 200))
            answer, seen = devnet.send(signed), devnet.tick
            if seen + 1 >= signed.tick:  # this process was held up: it may have come too late, which is told to nobody
                late[signed.id] = signed.amount
                continue
            assert answer.status_code == 200
            acknowledged[signed.id] = signed.amount
        devnet.kill()
    devnet = Devnet(tmp_path)
    assert devnet.tick >= seen
    devnet.step(400)
    known = {one for one in late if devnet.http.post("/query/v1/getTransactionByHash", json={"hash": one}).status_code == 200}
    assert devnet.balance(payee)["incomingAmount"] == str(sum(acknowledged.values()) + sum(late[one] for one in known))
    for found in acknowledged:
        assert devnet.query("getTransactionByHash", hash=found)["moneyFlew"]
    assert devnet.admin.get("/status").json()["supply"] == supply
    devnet.stop()


def test_the_clock_ticks_by_itself(tmp_path: Path) -> None:
    devnet = Devnet(tmp_path, 0.05)
    first = devnet.tick
    deadline = time.monotonic() + 10
    while devnet.tick < first + 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    devnet.stop()


def test_the_first_line_says_where_it_is(process: Devnet) -> None:
    assert json.dumps(process.started)
    assert keys.public_key_from_subseed(keys.subseed_from_seed(process.started["faucet_seed"])) == identity.decode(
        process.started["faucet"]
    )
