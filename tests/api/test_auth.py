"""Accounts over HTTP."""

from __future__ import annotations

import pytest

from tests.api.conftest import PASSWORD, World


async def test_sign_up_logs_in_and_gives_wallets(world: World) -> None:
    anna = await world.person("anna")
    me = (await anna.http.get("/api/auth/me")).json()
    assert (me["email"], me["roles"]) == ("anna@example.com", [])
    wallets = (await anna.http.get("/api/wallets/balance")).json()["wallets"]
    assert {wallet["asset"]: wallet["available"] for wallet in wallets} == {"QUBIC": 0, "USDC": 0}


async def test_login_takes_json_and_the_oauth2_form(world: World) -> None:
    await world.person("anna")
    by_json = await world.client().post("/api/auth/login", json={"email": "anna@example.com", "password": PASSWORD})
    by_form = await world.client().post(
        "/api/auth/login", data={"username": "anna@example.com", "password": PASSWORD, "grant_type": "password"}
    )
    for answer in (by_json, by_form):
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "bearer"
        assert answer.json()["expires_in"] == 900


async def test_a_wrong_password_and_an_unknown_address_look_the_same(world: World) -> None:
    await world.person("anna")
    answers = [
        await world.client().post("/api/auth/login", json={"email": email, "password": "wrong password"})
        for email in ("anna@example.com", "nobody@example.com")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["content-type"] == "application/problem+json"


async def test_the_browsers_session_is_a_cookie_that_scripts_cannot_read(world: World) -> None:
    answer = await world.client(**{"Sec-Fetch-Site": "same-origin"}).post(
        "/api/auth/signup", json={"email": "a@example.com", "password": PASSWORD}
    )
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert answer.json()["expires_in"] > 86_400


@pytest.mark.parametrize("web_settings", [{"rate_limits": False, "public_url": "https://qubix.example"}], indirect=True)
async def test_behind_https_the_cookie_is_secure_and_the_browser_is_told_to_stay(world: World) -> None:
    answer = await world.client().post("/api/auth/signup", json={"email": "a@example.com", "password": PASSWORD})
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "max-age" in answer.headers["strict-transport-security"]


async def test_log_out_ends_the_session_and_everywhere_ends_all(world: World) -> None:
    anna = await world.person("anna")
    other = (await world.client().post("/api/auth/login", json={"email": anna.email, "password": PASSWORD})).json()["access_token"]
    assert (await anna.http.post("/api/auth/logout")).json() == {"ended": 1}
    assert (await anna.http.get("/api/auth/me")).status_code == 401
    client = world.client(other)
    assert (await client.get("/api/auth/me")).status_code == 200
    assert (await client.post("/api/auth/logout", json={"everywhere": True})).json()["ended"] >= 1
    assert (await client.get("/api/auth/me")).status_code == 401


async def test_an_api_key_is_shown_once_and_worthless_after_its_revocation(world: World) -> None:
    anna = await world.person("anna")
    made = (await anna.http.post("/api/auth/keys", json={"name": "ci"})).json()
    client = world.client(made["key"])
    assert (await client.get("/api/auth/me")).status_code == 200
    (listed,) = (await anna.http.get("/api/auth/keys")).json()["items"]
    assert "key" not in listed
    assert (await anna.http.delete(f"/api/auth/keys/{made['id']}")).status_code == 204
    assert (await client.get("/api/auth/me")).status_code == 401


async def test_a_key_without_the_scope_is_told_which_one_is_missing(world: World) -> None:
    anna = await world.person("anna")
    client = world.client(await anna.api_key(scopes=["read"]))
    answer = await client.post("/api/wallets/faucet", json={"amount": 1})
    assert (answer.status_code, answer.json()["code"], answer.json()["scope"]) == (401, "scope_missing", "money")


async def test_a_key_cannot_make_a_stronger_key(world: World) -> None:
    anna = await world.person("anna")
    answer = await world.client(await anna.api_key()).post("/api/auth/keys", json={"scopes": ["account"]})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/jobs"), ("POST", "/api/jobs/create"), ("GET", "/api/wallets/balance"), ("GET", "/api/audit"), ("GET", "/api/auth/me")],
)
async def test_nobody_is_asked_to_log_in(world: World, method: str, path: str) -> None:
    answer = await world.client().request(method, path, json={"kind": "mnist"} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["next_step"]
