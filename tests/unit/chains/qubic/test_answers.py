"""What the network's answers are read as, and what is none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import answers, identity
from qubix.chains.qubic.errors import MalformedAnswer, RpcRefused, RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.transaction import Transaction
from tests.fakes.qubic_rpc import FIRST, World, ok
from tests.unit.chains.qubic.vectors import KEYS, TRANSACTIONS

OWNER = KEYS[0]["identity"]
ENCODED, TX_ID = bytes.fromhex(TRANSACTIONS[0][1]["raw_hex"]), TRANSACTIONS[0][1]["tx_id"]


def archived(**changes: object) -> dict[str, object]:
    shown = {"hash": TX_ID, "amount": "7", "source": OWNER, "destination": OWNER, "tickNumber": 50, "timestamp": "1", "inputType": 0}
    return {**shown, "inputSize": 0, "inputData": "", "signature": "", "moneyFlew": True, **changes}


async def test_answers_are_read_bare_or_wrapped_with_numbers_as_text_or_not() -> None:
    world = World(FIRST, limits=RpcLimits(requests_per_s=1e9))

    async def of(answer: object, ask: Callable[[], object]) -> object:
        world.endpoints.write(FIRST, ok(answer))
        return await ask()  # type: ignore[misc]

    rpc = world.rpc
    info = {"tick": 10, "duration": 1, "epoch": 227, "initialTick": 1}
    assert await of({"tickInfo": info}, rpc.tick_info) == await of(info, rpc.tick_info)
    mine = {"id": OWNER, "balance": "9", "validForTick": 50}
    wrapped = await of({"balance": mine}, lambda: rpc.balance(OWNER, max_age_s=0))
    assert wrapped == await of({**mine, "balance": 9}, lambda: rpc.balance(OWNER, max_age_s=0))
    one = archived()
    assert await of(one, lambda: rpc.transaction(TX_ID)) == await of({"transaction": one}, lambda: rpc.transaction(TX_ID))
    assert await of([one], lambda: rpc.transactions_of_tick(50)) == await of({"transactions": [one]}, lambda: rpc.transactions_of_tick(50))
    span = {"epoch": 227, "firstTick": 1, "lastTick": 60}
    assert await of([span], rpc.tick_intervals) == await of({"processedTickIntervals": [span]}, rpc.tick_intervals)
    signed = {"tickNumber": 50, "epoch": 227, "transactionHashes": [TX_ID], "timestamp": "1"}
    assert await of(signed, lambda: rpc.tick_data(50)) == await of({"tickData": signed}, lambda: rpc.tick_data(50))
    assert await of({"tickData": None}, lambda: rpc.tick_data(50)) is None
    moved = {"transactionHash": TX_ID, "quTransfer": {"source": OWNER, "destination": OWNER, "amount": "7"}}
    seen = await of({"hits": {"total": 2}, "eventLogs": [moved], "validForTick": 60}, lambda: rpc.transfers(TX_ID))
    assert seen.transfers[0].amount == 7  # type: ignore[attr-defined]
    assert not seen.complete  # type: ignore[attr-defined]
    assert await of({"responseData": "CgAAAAAAAAA="}, rpc.send_many_fee) == 10


def test_a_movement_that_is_told_twice_counts_once_and_two_equal_ones_count_twice() -> None:
    row = {"logId": "7", "quTransfer": {"source": OWNER, "destination": OWNER, "amount": "7"}}
    rows = [row, row, {**row, "logId": "8"}]
    found = answers.transfers({"hits": {"total": 2}, "eventLogs": rows}, TX_ID)
    assert len(found.transfers) == 2
    assert found.complete


async def test_money_flew_left_out_is_unknown_and_not_false() -> None:
    world = World(FIRST)
    shown = archived()
    del shown["moneyFlew"]
    world.endpoints.write(FIRST, ok(shown))
    found = await world.rpc.transaction(TX_ID)
    assert found is not None
    assert found.money_flew is None


async def test_an_empty_object_is_not_an_empty_tick() -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, ok({}))
    with pytest.raises(MalformedAnswer):
        await world.rpc.transactions_of_tick(50)
    world.endpoints.write(FIRST, ok([]))
    assert await world.rpc.transactions_of_tick(50) == ()


@pytest.mark.parametrize("raw_hex", [found["raw_hex"] for _, found in TRANSACTIONS[:8]])
def test_an_archived_transaction_is_genuine_only_as_it_was_signed(raw_hex: str) -> None:
    signed = Transaction.from_bytes(bytes.fromhex(raw_hex))
    shown = archived(
        hash=signed.id,
        source=identity.encode(signed.source),
        destination=identity.encode(signed.destination),
        amount=str(signed.amount),
        tickNumber=signed.tick,
        inputType=signed.input_type,
        inputData=base64.b64encode(signed.payload).decode(),
        signature=base64.b64encode(signed.signature).decode(),
    )
    parse = answers.transaction
    assert parse(shown, signed.id).is_genuine()
    assert not parse({**shown, "amount": str(signed.amount + 1)}, signed.id).is_genuine()
    assert not parse({**shown, "destination": "A" * 60}, signed.id).is_genuine()
    assert not parse({**shown, "signature": ""}, signed.id).is_genuine()


_names = st.sampled_from(
    [
        "tickInfo",
        "tick",
        "epoch",
        "initialTick",
        "duration",
        "balance",
        "id",
        "validForTick",
        "transaction",
        "transactions",
        "hash",
        "amount",
        "source",
        "destination",
        "tickNumber",
        "inputData",
        "signature",
        "moneyFlew",
        "processedTickIntervals",
        "firstTick",
        "lastTick",
        "tickData",
        "transactionHashes",
        "eventLogs",
        "quTransfer",
        "hits",
        "total",
        "code",
        "message",
        "details",
        "nextTickNumber",
        "responseData",
        "transactionId",
        "peersBroadcasted",
        "lastProcessedLogTick",
        "intervalInitialTick",
        "x",
    ]
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1", "-1", "9" * 20, OWNER, TX_ID, "AA=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=6),
    max_leaves=12,
)


_bodies = st.one_of(_json.map(lambda found: json.dumps(found).encode()), st.binary(max_size=60))


@given(_json)
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_an_answer_only_its_type_or_malformed_answer_comes_of_it(found: object) -> None:
    for parse in (
        answers.tick_info,
        lambda answer: answers.balance(answer, OWNER),
        lambda answer: answers.broadcast_peers(answer, TX_ID),
        answers.contract_answer,
        answers.last_processed,
        answers.tick_intervals,
        lambda answer: answers.transaction(answer, TX_ID),
        lambda answer: answers.transactions_of_tick(answer, 50),
        lambda answer: answers.tick_data(answer, 50),
        lambda answer: answers.transfers(answer, TX_ID),
    ):
        with contextlib.suppress(MalformedAnswer):
            parse(found)


@given(st.sampled_from([200, 400, 404, 500, 429, 503]), _bodies)
@settings(max_examples=100, deadline=None)
def test_whatever_an_endpoint_answers_only_named_errors_come_of_it(status: int, body: bytes) -> None:
    async def run() -> None:
        world = World(FIRST, limits=RpcLimits(rounds_max=1, requests_per_s=1e9))
        world.endpoints.write(FIRST, httpx.Response(status, content=body))
        for ask in (world.rpc.tick_info, lambda: world.rpc.transactions_of_tick(50), lambda: world.rpc.broadcast(ENCODED)):
            with contextlib.suppress(RpcUnavailable, RpcRefused, TickNotYetProcessed, TickSkipped):
                await ask()
            world.clock.at_s += 1_000

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 10_000, b'{"tick": 1e999}', b"\xff", b'{"tick": NaN}', '{"tick": "١٢"}'.encode()])
async def test_json_that_breaks_parsers_is_malformed(body: bytes) -> None:
    world = World(FIRST, limits=RpcLimits(rounds_max=1))
    world.endpoints.write(FIRST, httpx.Response(200, content=body))
    with pytest.raises(MalformedAnswer):
        await world.rpc.tick_info()
