"""What a wallet's owner sees over HTTP while the real treasury watches a real devnet: from the faucet into the wallet, and out again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.app import create_app
from tests.conftest import Database
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import PAYER, Till

FUNDED = (PAYER,)
OUTSIDE = Person(701)


@pytest.fixture
async def anna(till: Till, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has just signed up."""
    url = till.devnet.url
    resources = database.resources(
        rate_limits=False,
        network="devnet",
        qubic_rpc_urls=(url, f"{url}/b"),
        qubic_requests_per_s=1000.0,
        qubic_explorer_url=f"{url}/network",
    )
    app = create_app(resources)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(base_url="http://qubix.test", transport=httpx.ASGITransport(app), timeout=30) as client,
    ):
        account = {"email": "anna@example.com", "password": "correct horse battery"}
        answer = await client.post("/api/auth/signup", json=account)
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client
    await resources.close()


async def get(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def page_of(till: Till, row: dict[str, Any]) -> str:
    """The page that a row's link opens."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(row["explorer_url"])
    assert answer.status_code == 200
    return answer.text


async def test_p_b12_b14_b21_b35_b36_money_comes_by_the_faucet_counts_to_three_and_goes_out_by_a_withdrawal(
    till: Till, anna: httpx.AsyncClient
) -> None:
    purse = await till.address()
    await till.advance(1)
    drawn = (await anna.post("/api/wallets/faucet", json={"amount": 500})).json()["payment"]
    assert drawn["address"] == purse.identity
    path = f"/api/wallets/transactions/{drawn['id']}"
    seen: list[tuple[str, int]] = []
    for _ in range(drawn["tick"] - till.devnet.tick + 9):
        await till.advance(1)
        answer = await anna.get(path)
        if answer.status_code == 404:
            continue
        row = answer.json()
        seen.append((row["status"], row["confirmations"]))
        processed = await till.value("SELECT processed FROM chain_state")
        assert row["confirmations"] <= processed - drawn["tick"], "never ahead of the archive"
        assert (row["status"] == "completed") == (row["confirmations"] == 3)
        wallet = (await get(anna, "/api/wallets/balance"))["wallets"][0]
        assert (wallet["available"], wallet["incoming"]) == ((500, 0) if row["status"] == "completed" else (0, 500))
    assert [count for (_, count), _ in itertools.groupby(seen)] == [0, 1, 2, 3]
    row = await get(anna, path)
    assert (row["tx_id"], row["tick"], row["change"], row["balance"]) == (drawn["tx_id"], drawn["tick"], 500, 500)
    assert row["tx_id"] in await page_of(till, row)
    held = await get(anna, f"/api/wallet/{purse.identity}/balance")
    assert held["balance"] == int(till.devnet.balance(purse)["balance"]) == 500

    sweep, _ = await till.sweep(purse, 500)
    assert await till.decided(sweep) == "PAID"
    asked = await anna.post("/api/wallets/withdraw", json={"amount": 200, "address": OUTSIDE.identity})
    assert asked.status_code == 202, asked.text
    leaving = f"/api/wallets/transactions/{asked.json()['id']}"
    payment, signed = await till.sign(await till.value("SELECT id FROM holds"))
    row = await get(anna, leaving)
    assert (row["chain_state"], row["status"], row["tx_id"], row["confirmations"]) == ("signed", "pending", signed.id, 0)
    assert row["expected_wait_s"] > 0
    assert await till.decided(payment) == "PAID"
    row = await get(anna, leaving)
    assert (row["chain_state"], row["status"], row["confirmations"], row["tick"]) == ("done", "completed", 3, signed.tick)
    assert signed.id in await page_of(till, row)
    assert till.devnet.balance(OUTSIDE)["balance"] == "200"
    assert (await get(anna, "/api/wallets/balance"))["wallets"][0]["available"] == 300
    assert [(row["type"], row["change"]) for row in (await get(anna, "/api/wallets/transactions"))["items"]] == [
        ("withdrawal", -200),
        ("deposit", 500),
    ]
    await till.sound()
