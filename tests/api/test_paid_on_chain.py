"""Jobs paid on the chain, over HTTP: the request, its progress, the trace from payment to job."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from qubix.bootstrap import scope
from qubix.controller import Controller
from tests.api.conftest import Person, World
from tests.fakes import deposits
from tests.fakes.nodes import join

CHAIN = pytest.mark.parametrize("web_settings", [{"rate_limits": False, "network": "devnet"}], indirect=True)
MNIST: dict[str, Any] = {"kind": "mnist", "duration_max_s": 60, "pay": "chain"}


async def shown_when(person: Person, path: str, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the path answers once it is as awaited."""
    async with asyncio.timeout(10):
        while True:
            body: dict[str, Any] = (await person.http.get(path)).json()
            if ready(body):
                return body
            await asyncio.sleep(0.02)


@CHAIN
async def test_a_job_asks_for_its_payment_and_shows_it_until_it_is_funded(world: World) -> None:
    anna, bert = await world.person("anna"), await world.person("bert")
    await join(world.resources, price=3600)
    await deposits.addresses(world.owner)
    await deposits.chain(world.owner)
    answer = await anna.http.post("/api/jobs/create", json=MNIST, headers={"Idempotency-Key": "a"})
    assert answer.status_code == 201, answer.text
    job, asked = answer.json()["job"], answer.json()["payment"]
    assert (job["state"], asked["state"], asked["amount"], asked["missing"]) == ("AWAITING_FUNDS", "waiting", 60, 60)
    assert (asked["confirmations"], asked["expected_wait_s"], asked["delayed"]) == (0, 26, False)
    assert asked["memo"] == f"qubix:job:{job['id']}"
    assert bytes.fromhex(asked["payload_hex"]).decode() == asked["memo"]
    draft = asked["transaction"]
    assert base64.b64decode(draft.pop("payload")).decode() == asked["memo"]
    assert draft == {"destination": asked["address"], "amount": 60, "input_type": 0, "tick_offset": 20}
    assert asked["explorer_url"].endswith(f"/address/{asked['address']}")
    again = await anna.http.post("/api/jobs/create", json=MNIST, headers={"Idempotency-Key": "a"})
    assert again.json() == answer.json()
    assert (await anna.http.get(f"/api/jobs/{job['id']}/payment")).json()["memo"] == asked["memo"]
    assert (await bert.http.get(f"/api/jobs/{job['id']}/payment")).status_code == 404
    timeline = (await anna.http.get(f"/api/jobs/{job['id']}/timeline")).json()["items"]
    assert timeline[0]["detail"] == "waits for a payment of 60 QU"
    receipt = (await anna.http.get(f"/api/jobs/{job['id']}")).json()["receipt"]
    assert (receipt["held"], receipt["tx_ids"]) == (0, [])


@CHAIN
async def test_p_b17_job_escrow_and_receipt_tell_the_transactions_that_funded_them(world: World, controller: Controller) -> None:
    anna, ops = await world.person("anna"), await world.person("ops", roles=("operator",))
    await join(world.resources, price=3600)
    await deposits.addresses(world.owner)
    await deposits.chain(world.owner)
    made = (await anna.http.post("/api/jobs/create", json={**MNIST, "needs": {"vram_bytes": 1 << 43}, "budget": 60})).json()
    job = f"/api/jobs/{made['job']['id']}"
    paid = await deposits.seen(world.owner, made["payment"]["address"], 60)
    await paid.confirmed(2)
    shown = await shown_when(anna, f"{job}/payment", lambda body: body["confirmations"] == 2)
    (one,) = shown["payments"]
    assert (one["tx_id"], one["state"], one["confirmations"]) == (paid.tx_id, "SEEN", 2)
    assert one["explorer_url"].endswith(f"/tx/{paid.tx_id}")
    assert (shown["expected_wait_s"], shown["transaction"]) == (4, None)
    await paid.credited()
    detail = await shown_when(anna, job, lambda body: body["state"] == "PENDING")
    assert (detail["payment"]["state"], detail["payment"]["confirmations"]) == ("paid", 3)
    assert detail["receipt"]["tx_ids"] == [paid.tx_id]
    escrow = f"/api/escrows/{made['job']['id']}"
    assert (await anna.http.get(escrow)).json()["tx_ids"] == [paid.tx_id]
    assert (await ops.http.get(escrow)).json()["tx_ids"] == []


@CHAIN
async def test_what_the_wallet_holds_already_needs_no_payment(world: World) -> None:
    anna = await world.person("anna")
    await join(world.resources, price=3600)
    await deposits.addresses(world.owner)
    async with scope(world.resources) as s:
        address = await s.treasury.deposit_address(UUID(anna.id))
    await (await deposits.seen(world.owner, address, 100)).credited()
    made = (await anna.http.post("/api/jobs/create", json=MNIST)).json()
    assert (made["job"]["state"], made["payment"]) == ("PENDING", None)
    answer = await anna.http.get(f"/api/jobs/{made['job']['id']}/payment")
    assert (answer.status_code, "wallet paid" in answer.json()["detail"]) == (404, True)


async def test_on_a_platform_without_a_chain_it_is_a_clear_refusal(world: World) -> None:
    anna = await world.person("anna", funds=1000)
    await join(world.resources, price=3600)
    answer = await anna.http.post("/api/jobs/create", json=MNIST)
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_network")
    assert answer.json()["next_step"]


@CHAIN
async def test_without_a_free_address_it_is_to_be_tried_again(world: World) -> None:
    anna = await world.person("anna")
    await join(world.resources, price=3600)
    answer = await anna.http.post("/api/jobs/create", json=MNIST)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_address_yet")
    assert int(answer.headers["retry-after"]) > 0


@CHAIN
async def test_a_cancelled_wait_is_over_and_asks_for_nothing_more(world: World, controller: Controller) -> None:
    anna = await world.person("anna")
    await join(world.resources, price=3600)
    await deposits.addresses(world.owner)
    made = (await anna.http.post("/api/jobs/create", json=MNIST)).json()
    assert (await anna.http.post(f"/api/jobs/{made['job']['id']}/cancel")).status_code == 200
    detail = await shown_when(anna, f"/api/jobs/{made['job']['id']}", lambda body: body["state"] == "CANCELLED")
    assert (detail["payment"]["state"], detail["payment"]["transaction"]) == ("over", None)
    assert detail["receipt"]["escrow_state"] == "REFUNDED"
