"""What every route has in common: errors, headers, origins, limits."""

from __future__ import annotations

import json
import shutil

import httpx
import pytest

from serve_app import openapi
from tests.api.conftest import PASSWORD, World


async def test_an_unknown_route_and_method_are_problems_with_a_next_step(world: World) -> None:
    for answer, status, code in (
        (await world.client().get("/api/nothing"), 404, "not_found"),
        (await world.client().delete("/api/gpus/search"), 405, "method_not_allowed"),
    ):
        body = answer.json()
        assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["next_step"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", "body.1"),
        (b"[]", "body"),
        (b'{"amount": "many"}', "body.amount"),
        (b'{"amount": 0}', "body.amount"),
        (b'{"amount": 1, "colour": "red"}', "body.colour"),
        (b"", "body"),
        (b"\xff\xfe", "body.0"),
        (b"\xc3{", "body"),
        (b'{"amount": "1"}', "body.amount"),
        (b'{"amount": true}', "body.amount"),
        (b'{"amount": 1.0}', "body.amount"),
        (b'{"amount": Infinity}', "body.amount"),
        (b"[" * 200_000, "body"),
    ],
)
async def test_a_malformed_body_names_the_field_and_what_is_allowed(world: World, content: bytes, field: str) -> None:
    anna = await world.person("anna")
    answer = await anna.http.post("/api/wallets/faucet", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert answer.json()["errors"][0]["message"]
    assert answer.json()["next_step"]


async def test_a_method_that_a_path_does_not_know_is_told_all_that_it_knows(world: World) -> None:
    answer = await world.client().request("DELETE", "/api/auth/me")
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "GET, PATCH", "method_not_allowed")


async def test_a_bare_number_is_no_time(world: World) -> None:
    anna = await world.person("anna")
    assert (await anna.http.get("/api/wallets/transactions?since=0.5")).status_code == 422
    assert (await anna.http.get("/api/wallets/transactions?since=2026-01-31T12:00:00Z")).status_code == 200


async def test_what_a_value_may_be_stands_in_the_error(world: World) -> None:
    answer = await world.client().get("/api/gpus/search?sort=colour")
    assert answer.status_code == 422
    assert "cost_benefit" in answer.text


async def test_every_answer_carries_the_security_headers_and_a_request_id(world: World) -> None:
    for path in ("/health/live", "/api/nothing", "/api/docs"):
        headers = (await world.client().get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"]
    given = await world.client().get("/health/live", headers={"X-Request-Id": "my-request-0001"})
    assert given.headers["x-request-id"] == "my-request-0001"
    forged = await world.client().get("/health/live", headers={"X-Request-Id": "x" * 500})
    assert forged.headers["x-request-id"] != "x" * 500


async def test_a_body_past_the_limit_is_refused_by_its_announced_length(world: World) -> None:
    anna = await world.person("anna")
    answer = await anna.http.post("/api/wallets/faucet", content=b" " * ((1 << 20) + 1), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"], answer.json()["limit_bytes"]) == (413, "too_large", 1 << 20)


async def browser(world: World) -> httpx.AsyncClient:
    await world.person("anna")
    client = world.client(**{"Sec-Fetch-Site": "same-origin"})
    answer = await client.post("/api/auth/login", json={"email": "anna@example.com", "password": PASSWORD})
    assert answer.status_code == 200
    del client.headers["Sec-Fetch-Site"]
    client.cookies.set("qubix_session", answer.cookies["qubix_session"])
    return client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({}, 403),
        ({"Origin": "http://qubix.test"}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_a_cookie_moves_money_only_from_our_own_page(world: World, headers: dict[str, str], status: int) -> None:
    client = await browser(world)
    answer = await client.post("/api/wallets/faucet", json={"amount": 1}, headers=headers)
    assert answer.status_code == status, answer.text
    assert (await client.get("/api/wallets/balance", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


async def test_another_sites_page_cannot_log_a_browser_in(world: World) -> None:
    await world.person("anna")
    body = {"email": "anna@example.com", "password": PASSWORD}
    answer = await world.client().post("/api/auth/login", json=body, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")


async def test_no_other_origin_is_allowed_by_default(world: World) -> None:
    preflight = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
    answer = await world.client().options("/api/wallets/faucet", headers=preflight)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("web_settings", [{"rate_limits": False, "cors_origins": ("https://friend.example",)}], indirect=True)
async def test_an_origin_of_the_settings_is_allowed_and_no_other(world: World) -> None:
    for origin, allowed in (("https://friend.example", True), ("https://other.example", False)):
        answer = await world.client().get("/health/live", headers={"Origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is allowed


@pytest.mark.parametrize("web_settings", [{"money_per_minute": 3, "search_per_minute": 2}], indirect=True)
async def test_past_the_limit_the_answer_is_429_with_the_wait_and_other_buckets_go_on(world: World) -> None:
    anna = await world.person("anna")
    bert = await world.person("bert")
    # Where a minute of the clock begins meanwhile, two windows let at most six pass.
    answers = [await anna.http.post("/api/wallets/faucet", json={"amount": 1}) for _ in range(8)]
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert (refused.json()["code"], refused.json()["bucket"]) == ("rate_limited", "money")
    assert (await anna.http.get("/api/wallets/balance")).status_code == 200
    assert (await bert.http.post("/api/wallets/faucet", json={"amount": 1})).status_code == 200


@pytest.mark.parametrize("web_settings", [{"search_per_minute": 2}], indirect=True)
async def test_searches_of_nobody_count_by_address_and_an_operators_key_is_not_limited(world: World) -> None:
    statuses = [(await world.client().get("/api/gpus/search")).status_code for _ in range(6)]
    assert statuses[:2] == [200, 200]
    assert 429 in statuses
    operator = await world.person("olga", roles=("operator",))
    client = world.client(await operator.api_key())
    assert {(await client.get("/api/gpus/search")).status_code for _ in range(30)} == {200}


@pytest.mark.parametrize("web_settings", [{"login_per_minute": 3, "forwarded_hops": 1}], indirect=True)
async def test_guessing_a_password_is_refused_at_the_guessers_address_and_never_at_the_owners(world: World) -> None:
    await world.person("anna")
    good, bad = ({"email": "anna@example.com", "password": password} for password in (PASSWORD, "a wrong password"))

    async def login(body: dict[str, str], address: str) -> int:
        answer = await world.client(**{"X-Forwarded-For": address}).post("/api/auth/login", json=body)
        return answer.status_code

    assert await login(good, "192.0.2.1") == 200
    # The window slides: on a slow machine a second one may begin meanwhile, and lets a few more through.
    statuses = [await login(bad, "192.0.2.66") for _ in range(8)]
    assert statuses[:3] == [401] * 3
    assert 429 in statuses
    assert [await login(good, "192.0.2.1") for _ in range(5)] == [200] * 5, "an address that logged in before"
    assert await login(good, "192.0.2.2") == 200, "a new address of the owner"


async def scraped(world: World) -> str:
    """What an operator reads of this replica."""
    operator = await world.person("operator", roles=("operator",))
    return (await operator.http.get("/metrics")).text


async def test_health_says_what_is_missing_and_metrics_count(world: World) -> None:
    assert (await world.client().get("/health/live")).json() == {"status": "live"}
    ready = await world.client().get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["parts"]["database"]["ok"]
    assert not ready.json()["parts"]["controller"]["ok"]
    text = await scraped(world)
    assert 'qubix_http_requests_total{method="GET",route="/health/live",status="200"} 1.0' in text
    assert 'qubix_database_pool_connections{state="in_use"}' in text
    assert "qubix_breaker_open 0.0" in text


async def test_metrics_are_for_operators(world: World) -> None:
    anna = await world.person("anna")
    assert (await world.client().get("/metrics")).status_code == 401
    assert (await anna.http.get("/metrics")).status_code == 404


async def test_what_a_caller_makes_up_makes_no_new_series(world: World) -> None:
    client = world.client()
    await client.request("MADEUP", "/nowhere/1")
    await client.get("/nowhere/2")
    text = await scraped(world)
    assert 'method="other",route="unmatched"' in text
    assert "MADEUP" not in text
    assert "nowhere" not in text


async def test_the_bytes_of_an_upload_are_counted_by_route(world: World) -> None:
    anna = await world.person("anna")
    assert (await anna.http.post("/api/uploads?filename=a.py", content=b"x" * 1000)).status_code == 201
    assert 'qubix_http_request_bytes_total{route="/api/uploads"} 1000.0' in await scraped(world)


async def test_a_platform_that_cannot_store_bytes_is_not_ready_and_says_why(world: World) -> None:
    assert (await world.client().get("/health/ready")).json()["parts"]["storage"] == {"ok": True, "detail": "writable"}
    folder = world.resources.settings.data_dir / "blobs"
    shutil.rmtree(folder)
    folder.write_text("")
    part = (await world.client().get("/health/ready")).json()["parts"]["storage"]
    assert part == {"ok": False, "detail": "the blob store cannot write: Not a directory"}


@pytest.mark.parametrize("web_settings", [{"ray_address": "127.0.0.1:1"}])
async def test_a_replica_whose_ray_head_is_away_is_not_ready(world: World) -> None:
    part = (await world.client().get("/health/ready")).json()["parts"]["ray"]
    assert part == {"ok": False, "detail": "not answering (ConnectionRefusedError)"}


async def test_when_the_database_is_away_the_answer_is_503_without_details(world: World) -> None:
    anna = await world.person("anna")
    name = world.resources.engine.url.database
    url = world.resources.engine.url
    await world.resources.engine.dispose()
    object.__setattr__(
        world.resources,
        "engine",
        __import__("qubix.postgres.engine", fromlist=["make_engine"]).make_engine(
            url.set(port=1, database=name).render_as_string(hide_password=False)
        ),
    )
    answers = [await anna.http.get("/api/wallets/balance") for _ in range(8)]
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert "postgres" not in answers[0].text.lower()
    assert "127.0.0.1" not in answers[0].text


async def test_the_documentation_lists_every_route_without_a_script(world: World) -> None:
    page = (await world.client().get("/api/docs")).text
    paths = json.loads(openapi.document())["paths"]
    assert all(path in page for path in paths)
    assert "<script" not in page


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\U0010ffff\x00"])
async def test_text_that_cannot_be_kept_is_the_requests_fault_and_opens_no_breaker(world: World, text: str) -> None:
    anna = await world.person("anna")
    for _ in range(8):
        answer = await anna.http.patch("/api/auth/me", content=json.dumps({"name": text}), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
    assert (await anna.http.get("/api/auth/me")).status_code == 200


async def test_a_search_for_what_no_text_can_hold_is_refused_and_the_next_one_answered(world: World) -> None:
    assert (await world.client().get("/api/gpus/search?q=%00")).status_code == 422
    assert (await world.client().get("/api/gpus/search")).status_code == 200


async def test_an_id_that_is_none_is_not_found(world: World) -> None:
    anna = await world.person("anna")
    for path in ("/api/jobs/nonsense", "/api/escrows/1", "/api/nodes/x"):
        assert (await anna.http.get(path)).status_code == 404
