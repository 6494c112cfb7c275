"""Logging in with a Qubic wallet, over HTTP, with signatures of real keys."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from qubix.chains.qubic import identity
from qubix.chains.qubic.login import Scheme
from tests.api.conftest import PASSWORD, World
from tests.fakes.wallets import QubicWallet

schemes = pytest.mark.parametrize("scheme", Scheme)
MANUAL = Scheme.MANUAL


async def challenge(client: httpx.AsyncClient, wallet: QubicWallet, purpose: str = "login") -> dict[str, Any]:
    answer = await client.post("/api/wallet/challenge", json={"identity": wallet.identity, "purpose": purpose})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def send(client: httpx.AsyncClient, asked: dict[str, Any], signature: str, scheme: Scheme = MANUAL) -> httpx.Response:
    return await client.post("/api/wallet/connect", json={"nonce": asked["nonce"], "scheme": scheme.value, "signature": signature})


async def connect(client: httpx.AsyncClient, wallet: QubicWallet, *, purpose: str = "login", scheme: Scheme = MANUAL) -> httpx.Response:
    asked = await challenge(client, wallet, purpose)
    return await send(client, asked, wallet.sign(scheme, asked["text"]), scheme)


async def logged_in(world: World, wallet: QubicWallet) -> httpx.AsyncClient:
    answer = await connect(world.client(), wallet)
    assert answer.status_code == 200, answer.text
    return world.client(answer.json()["access_token"])


async def users(world: World) -> int:
    return int(await world.owner.scalar(sa.text("SELECT count(*) FROM users")) or 0)


async def linked(client: httpx.AsyncClient) -> list[str]:
    return [found["identity"] for found in (await client.get("/api/wallet/identities")).json()["items"]]


@schemes
async def test_the_first_login_makes_one_account_with_its_wallets_and_the_second_finds_it(world: World, scheme: Scheme) -> None:
    wallet = QubicWallet()
    first = (await connect(world.client(), wallet, scheme=scheme)).json()
    second = (await connect(world.client(), wallet, scheme=scheme)).json()
    assert (first["created"], second["created"]) == (True, False)
    assert first["user"]["id"] == second["user"]["id"]
    assert (first["user"]["email"], first["identity"], first["token_type"], first["expires_in"]) == (None, wallet.identity, "bearer", 900)
    assert await users(world) == 1
    client = world.client(second["access_token"])
    assert (await client.get("/api/auth/me")).json() == first["user"]
    assert {found["asset"]: found["available"] for found in (await client.get("/api/wallets/balance")).json()["wallets"]} == {
        "QUBIC": 0,
        "USDC": 0,
    }
    assert (await client.get("/api/wallet/identities")).json()["items"][0]["scheme"] == scheme.value


async def test_a_wallet_logs_in_by_whichever_way_it_signs(world: World) -> None:
    wallet = QubicWallet()
    ids = {(await connect(world.client(), wallet, scheme=scheme)).json()["user"]["id"] for scheme in Scheme}
    assert len(ids) == 1


async def test_a_browser_gets_its_cookie_as_by_a_password(world: World) -> None:
    browser = world.client(**{"Sec-Fetch-Site": "same-origin"})
    answer = await connect(browser, QubicWallet())
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert answer.json()["expires_in"] > 86_400
    assert (await browser.get("/api/auth/me")).status_code == 200


@pytest.mark.parametrize("web_settings", [{"rate_limits": False, "public_url": "https://qubix.example"}], indirect=True)
async def test_the_text_says_who_asks_whom_what_for_and_until_when(world: World) -> None:
    wallet = QubicWallet()
    asked = await challenge(world.client(), wallet)
    lines = asked["text"].splitlines()
    assert lines[0] == "qubix.example asks you to log in with your Qubic wallet."
    for line in ("Domain: qubix.example", f"Identity: {wallet.identity}", f"Nonce: {asked['nonce']}", f"Expires: {asked['expires_at']}"):
        assert line in lines
    assert (await challenge(world.client(), wallet))["nonce"] != asked["nonce"]


@schemes
async def test_anothers_signature_another_text_another_scheme_and_the_twin_are_refused_and_the_right_one_still_counts(
    world: World, scheme: Scheme
) -> None:
    wallet, eve, client = QubicWallet(), QubicWallet(), world.client()
    asked, other = await challenge(client, wallet), await challenge(client, wallet)
    next_scheme = next(found for found in Scheme if found is not scheme)
    wrong = {
        "another's": eve.sign(scheme, asked["text"]),
        "another text": wallet.sign(scheme, asked["text"] + "\n"),
        "another challenge": wallet.sign(scheme, other["text"]),
        "another scheme": wallet.sign(next_scheme, asked["text"]),
        "twin": wallet.twin(scheme, asked["text"]),
        "nothing": "",
        "rubbish": "Ä" * 130,
    }
    for name, signature in wrong.items():
        answer = await send(client, asked, signature, scheme)
        assert (answer.status_code, answer.json()["code"]) == (401, "wrong_signature"), name
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-type"] == "application/problem+json"
    assert await users(world) == 0
    assert (await send(client, asked, wallet.sign(scheme, asked["text"]), scheme)).status_code == 200


async def test_a_challenge_is_good_once_and_a_used_one_looks_like_none(world: World) -> None:
    wallet = QubicWallet()
    asked = await challenge(world.client(), wallet)
    signature = wallet.sign(MANUAL, asked["text"])
    assert (await send(world.client(), asked, signature)).status_code == 200
    again = await send(world.client(), asked, signature)
    unknown = await send(world.client(), {"nonce": "0" * 32}, signature)
    malformed = await send(world.client(), {"nonce": "Ä'; --"}, signature)
    assert (again.status_code, again.json()["code"]) == (409, "challenge_unknown")
    assert again.json() == unknown.json() == malformed.json()


async def test_an_expired_challenge_says_so_and_what_to_do(world: World) -> None:
    wallet, client = QubicWallet(), world.client()
    asked = await challenge(client, wallet)
    await world.owner.execute(
        sa.text(
            "UPDATE wallet_challenges SET created_at = created_at - interval '5 minutes', expires_at = expires_at - interval '5 minutes'"
        )
    )
    answer = await send(client, asked, wallet.sign(MANUAL, asked["text"]))
    assert (answer.status_code, answer.json()["code"]) == (409, "challenge_expired")
    assert "new one" in answer.json()["next_step"]
    assert await users(world) == 0


async def test_of_two_that_send_one_signature_at_once_one_is_logged_in(world: World) -> None:
    wallet, client = QubicWallet(), world.client()
    asked = await challenge(client, wallet)
    signature = wallet.sign(MANUAL, asked["text"])
    answers = await asyncio.gather(*(send(world.client(), asked, signature) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM sessions")) == 1


async def test_two_first_logins_at_once_make_one_account(world: World) -> None:
    wallet = QubicWallet()
    answers = await asyncio.gather(*(connect(world.client(), wallet) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.json()["user"]["id"] for answer in answers}) == 1
    assert sum(answer.json()["created"] for answer in answers) == 1
    assert await users(world) == 1


def _bad_checksum() -> str:
    found = identity.encode(bytes(range(32)))
    return found[:-1] + ("A" if found[-1] != "A" else "B")


@pytest.mark.parametrize(
    ("identity", "says"),
    [
        (_bad_checksum(), "last four letters"),
        ("A" * 59, "60 upper-case letters"),
        ("a" * 60, "60 upper-case letters"),
        ("Z" * 60, "no identity"),
        (identity.encode(identity.NULL), "No wallet holds"),
        (identity.encode(identity.contract(1)), "No wallet holds"),
        (identity.encode(bytes([2] + [0] * 30 + [1])), "No wallet holds"),
        ("", "60 upper-case letters"),
    ],
)
async def test_what_no_wallet_has_is_refused_with_what_is_wrong(world: World, identity: str, says: str) -> None:
    answer = await world.client().post("/api/wallet/challenge", json={"identity": identity})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_identity", "identity")
    assert says in answer.json()["detail"]
    assert answer.json()["next_step"]


@pytest.mark.parametrize("body", [{"nonce": "0" * 32, "signature": "x"}, {"nonce": "0" * 32, "signature": "x", "scheme": "metamask"}])
async def test_a_wallet_that_signs_in_a_way_of_its_own_is_told_the_ways(world: World, body: dict[str, str]) -> None:
    answer = await world.client().post("/api/wallet/connect", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "body.scheme")
    if "scheme" in body:
        assert all(scheme.value in answer.json()["detail"] for scheme in Scheme)


async def test_a_disabled_account_stays_out(world: World) -> None:
    wallet = QubicWallet()
    client = await logged_in(world, wallet)
    await world.owner.execute(sa.text("UPDATE users SET disabled_at = now()"))
    assert (await client.get("/api/auth/me")).status_code == 401
    answer = await connect(world.client(), wallet)
    assert (answer.status_code, answer.json()["code"]) == (401, "account_disabled")
    assert await users(world) == 1


@pytest.mark.parametrize("web_settings", [{"login_per_minute": 3}], indirect=True)
async def test_wrong_signatures_and_challenges_count_as_logins_do(world: World) -> None:
    wallet, client = QubicWallet(), world.client()
    asked = await challenge(client, wallet)
    statuses = [(await send(client, asked, "A" * 130)).status_code for _ in range(8)]
    assert statuses[:3] == [401] * 3
    assert 429 in statuses
    made = [(await client.post("/api/wallet/challenge", json={"identity": wallet.identity})).status_code for _ in range(8)]
    assert 429 in made


async def test_another_sites_page_neither_asks_nor_logs_in(world: World) -> None:
    wallet = QubicWallet()
    foreign = world.client(Origin="https://evil.example")
    asked = await challenge(world.client(), wallet)
    assert (await foreign.post("/api/wallet/challenge", json={"identity": wallet.identity})).status_code == 403
    assert (await send(foreign, asked, wallet.sign(MANUAL, asked["text"]))).status_code == 403


async def test_an_expired_session_does_not_stand_in_the_way_of_a_login(world: World) -> None:
    stale = world.client(Cookie="qubix_session=qs_gone", **{"Sec-Fetch-Site": "same-origin"})
    assert (await connect(stale, QubicWallet())).status_code == 200


async def test_the_accounts_owner_adds_a_wallet_and_both_ways_lead_to_the_account(world: World) -> None:
    anna, wallet = await world.person("anna"), QubicWallet()
    asked = await challenge(anna.http, wallet, "link")
    assert f"Account: {anna.id} ({anna.email})" in asked["text"].splitlines()
    assert "add your Qubic wallet" in asked["text"]
    answer = await send(anna.http, asked, wallet.sign(MANUAL, asked["text"]))
    assert (answer.json()["purpose"], answer.json()["created"], answer.json()["user"]["id"]) == ("link", False, anna.id)
    assert await linked(anna.http) == [wallet.identity]
    by_wallet = await logged_in(world, wallet)
    assert (await by_wallet.get("/api/auth/me")).json()["id"] == anna.id
    assert (await connect(anna.http, wallet, purpose="link")).status_code == 200, "once more changes nothing"
    assert await linked(anna.http) == [wallet.identity]


async def test_adding_a_wallet_needs_a_login_that_may_do_all(world: World) -> None:
    anna, wallet = await world.person("anna"), QubicWallet()
    body = {"identity": wallet.identity, "purpose": "link"}
    assert (await world.client().post("/api/wallet/challenge", json=body)).status_code == 401
    for scopes in (["read", "jobs"], ["account", "read"]):
        answer = await world.client(await anna.api_key(scopes=scopes)).post("/api/wallet/challenge", json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "scope_missing"), "a wallet may do all that its account may"
    asked = await challenge(anna.http, wallet, "link")
    keeper = world.client(await anna.api_key(scopes=["account", "read"]))
    assert (await send(keeper, asked, wallet.sign(MANUAL, asked["text"]))).json()["code"] == "scope_missing"
    assert await linked(anna.http) == []


async def test_a_wallet_of_another_account_is_not_added(world: World) -> None:
    anna, wallet = await world.person("anna"), QubicWallet()
    bob = await logged_in(world, wallet)
    answer = await connect(anna.http, wallet, purpose="link")
    assert (answer.status_code, answer.json()["code"]) == (409, "wallet_taken")
    assert (await linked(anna.http), await linked(bob)) == ([], [wallet.identity])


# Attacks: Eve wants in to Ada's account, or Ada's wallet in her own.


async def test_eve_cannot_answer_the_challenge_of_adas_wallet_with_her_own(world: World) -> None:
    ada, eve = QubicWallet(), QubicWallet()
    await logged_in(world, ada)
    asked = await challenge(world.client(), ada)
    forged = asked["text"].replace(ada.identity, eve.identity)
    for text in (asked["text"], forged):
        assert (await send(world.client(), asked, eve.sign(MANUAL, text))).status_code == 401
    body = {"nonce": asked["nonce"], "scheme": "manual", "signature": eve.sign(MANUAL, forged), "identity": eve.identity, "message": forged}
    assert (await world.client().post("/api/wallet/connect", json=body)).status_code == 422, (
        "what is signed is our text, never the caller's"
    )


async def test_a_text_that_ada_signed_to_log_in_adds_her_wallet_to_nobodys_account(world: World) -> None:
    eve, wallet = await world.person("eve"), QubicWallet()
    asked = await challenge(eve.http, wallet, "login")
    answer = await send(eve.http, asked, wallet.sign(MANUAL, asked["text"]))
    assert answer.json()["user"]["id"] != eve.id
    assert await linked(eve.http) == []


async def test_a_text_that_ada_signed_to_add_her_wallet_logs_nobody_else_in(world: World) -> None:
    ada, eve, wallet = await world.person("ada"), await world.person("eve"), QubicWallet()
    asked = await challenge(ada.http, wallet, "link")
    signature = wallet.sign(MANUAL, asked["text"])
    by_eve = await send(eve.http, asked, signature)
    by_nobody = await send(world.client(), asked, signature)
    assert (by_eve.status_code, by_eve.json()["code"]) == (409, "challenge_unknown")
    assert by_nobody.status_code == 401
    assert "access_token" not in by_eve.text + by_nobody.text
    assert await linked(eve.http) == []
    assert (await send(ada.http, asked, signature)).status_code == 200, "it is still Ada's to use"


async def test_a_link_that_eve_asked_for_names_eves_account_in_what_ada_would_sign(world: World) -> None:
    eve, wallet = await world.person("eve"), QubicWallet()
    await eve.http.patch("/api/auth/me", json={"name": "ada@example.com"})
    text = (await challenge(eve.http, wallet, "link"))["text"]
    assert f"Account: {eve.id} (eve@example.com)" in text
    assert "ada@example.com" not in text
    assert "Sign only if that account is yours." in text


async def test_a_signature_of_the_same_words_elsewhere_logs_nobody_in_here(world: World) -> None:
    wallet = QubicWallet()
    asked = await challenge(world.client(), wallet)
    elsewhere = asked["text"].replace("127.0.0.1:8080", "evil.example")
    assert elsewhere != asked["text"]
    assert (await send(world.client(), asked, wallet.sign(MANUAL, elsewhere))).status_code == 401


async def test_a_signed_transaction_or_a_bare_digest_is_no_login(world: World) -> None:
    wallet = QubicWallet()
    asked = await challenge(world.client(), wallet)
    for scheme in Scheme:
        assert (await send(world.client(), asked, wallet.sign(Scheme.MANUAL, "x" * 32), scheme)).status_code == 401


async def test_a_wallet_is_removed_unless_it_is_the_only_way_in_and_its_sessions_end(world: World) -> None:
    first, second = QubicWallet(), QubicWallet()
    client = await logged_in(world, first)
    refused = await client.delete(f"/api/wallet/identities/{first.identity}")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_way_in")
    assert await linked(client) == [first.identity]
    assert (await connect(client, second, purpose="link")).status_code == 200
    assert (await client.delete(f"/api/wallet/identities/{first.identity}")).status_code == 204
    assert (await client.get("/api/auth/me")).status_code == 401, "every session ended"
    again = await logged_in(world, second)
    assert await linked(again) == [second.identity]
    assert (await connect(world.client(), first)).json()["created"] is True, "a stranger now"


async def test_an_account_made_by_a_wallet_sets_its_address_once_and_then_logs_in_by_password_too(world: World) -> None:
    await world.person("anna")
    wallet = QubicWallet()
    client = await logged_in(world, wallet)
    lonely = await client.patch("/api/auth/me", json={"password": PASSWORD})
    assert (lonely.status_code, lonely.json()["field"]) == (422, "email")
    assert (await client.patch("/api/auth/me", json={"email": "Anna@example.com"})).json()["code"] == "email_taken"
    changed = await client.patch("/api/auth/me", json={"email": "Wally@example.com"})
    assert changed.json()["email"] == "wally@example.com"
    assert (await client.patch("/api/auth/me", json={"email": "other@example.com"})).status_code == 409
    assert (await client.patch("/api/auth/me", json={"email": "wally@example.com", "password": PASSWORD})).status_code == 200
    login = await world.client().post("/api/auth/login", json={"email": "wally@example.com", "password": PASSWORD})
    by_password = world.client(login.json()["access_token"])
    assert (await by_password.delete(f"/api/wallet/identities/{wallet.identity}")).status_code == 204, "the password is another way in"


async def test_a_key_without_every_scope_gives_the_account_no_first_password(world: World) -> None:
    client = await logged_in(world, QubicWallet())
    key = (await client.post("/api/auth/keys", json={"scopes": ["account", "read"]})).json()["key"]
    answer = await world.client(key).patch("/api/auth/me", json={"email": "eve@example.com", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (401, "scope_missing")
    assert (await client.get("/api/auth/me")).json()["email"] is None


async def test_the_command_line_logs_in_by_a_wallet_in_two_steps(served: World, tmp_path: Path) -> None:
    wallet = QubicWallet()

    async def qubix(*arguments: str) -> Any:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from qubix.cli.main import main; main()", *arguments, "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "QUBIX_CONFIG": str(tmp_path / "config.json")},
        )
        said, _ = await started.communicate()
        return json.loads(said)

    asked = (await qubix("login", "--url", served.url, "--wallet", wallet.identity))["challenge"]
    answer = json.dumps({"identity": wallet.identity, "message": asked["text"], "signature": wallet.sign(MANUAL, asked["text"])})
    again = ("--wallet", wallet.identity, "--nonce", asked["nonce"], "--signature", answer)
    user = (await qubix("login", "--url", served.url, *again))["user"]
    assert user["email"] is None
    assert len((await qubix("keys"))["items"]) == 1, "it stays logged in, by a key"
    assert (await qubix("login", "--url", served.url, *again))["error"]["code"] == "challenge_unknown"
