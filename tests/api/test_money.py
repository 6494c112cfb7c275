"""Money over HTTP: funds, repeats, escrows."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import World


def available(wallets: dict[str, object]) -> int:
    return next(wallet["available"] for wallet in wallets["wallets"] if wallet["asset"] == "QUBIC")  # type: ignore[attr-defined,no-any-return]


async def test_fifty_parallel_requests_with_one_key_have_one_effect_and_one_answer(world: World) -> None:
    anna = await world.person("anna")

    async def draw() -> tuple[int, str]:
        answer = await anna.http.post("/api/wallets/faucet", json={"amount": 7}, headers={"Idempotency-Key": "k1"})
        return answer.status_code, answer.text

    answers = set(await asyncio.gather(*(draw() for _ in range(50))))
    assert len(answers) == 1
    assert answers.pop()[0] == 200
    assert available((await anna.http.get("/api/wallets/balance")).json()) == 7


async def test_the_same_key_with_another_body_is_a_conflict(world: World) -> None:
    anna = await world.person("anna")
    for amount, status in ((1, 200), (2, 409), (1, 200)):
        answer = await anna.http.post("/api/wallets/faucet", json={"amount": amount}, headers={"Idempotency-Key": "k1"})
        assert answer.status_code == status
    assert answer.headers["idempotency-replayed"] == "true"
    assert available((await anna.http.get("/api/wallets/balance")).json()) == 1


async def test_a_key_is_its_owners_alone(world: World) -> None:
    for name in ("anna", "bert"):
        person = await world.person(name)
        await person.http.post("/api/wallets/faucet", json={"amount": 3}, headers={"Idempotency-Key": "same"})
        assert available((await person.http.get("/api/wallets/balance")).json()) == 3


async def test_what_was_refused_may_be_tried_again_with_the_same_key(world: World) -> None:
    anna = await world.person("anna")
    refused = await anna.http.post("/api/wallets/faucet", json={"amount": 10**17}, headers={"Idempotency-Key": "k"})
    assert refused.status_code == 422
    given = await anna.http.post("/api/wallets/faucet", json={"amount": 10}, headers={"Idempotency-Key": "k"})
    assert given.status_code == 200


async def test_the_history_comes_in_pages_newest_first(world: World) -> None:
    anna = await world.person("anna")
    for amount in range(1, 6):
        await anna.http.post("/api/wallets/faucet", json={"amount": amount})
    seen: list[int] = []
    cursor = None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await anna.http.get("/api/wallets/transactions", params=params)).json()
        seen += [item["amount"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=x", "since=yesterday", "type=gift"])
async def test_a_wrong_page_is_refused(world: World, query: str) -> None:
    anna = await world.person("anna")
    assert (await anna.http.get(f"/api/wallets/transactions?{query}")).status_code == 422


async def test_earnings_of_who_earned_nothing_are_zero(world: World) -> None:
    anna = await world.person("anna")
    body = (await anna.http.get("/api/earnings")).json()
    assert {item["total"] for item in body["items"]} <= {0}


async def test_the_audit_is_for_operators_and_finds_nothing(world: World) -> None:
    anna = await world.person("anna", funds=5)
    operator = await world.person("olga", roles=("operator",))
    assert (await anna.http.get("/api/audit")).status_code == 404
    assert (await operator.http.get("/api/audit")).json() == {"ok": True, "problems": []}
