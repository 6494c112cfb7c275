"""Sessions in a browser under attack: fixation, cookies of a neighbour, logins in masses, forged addresses, repeated requests."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from qubix.identity.passwords import Passwords
from serve_app import openapi
from serve_app.web import HASHES_AT_ONCE
from tests.api.access import RULES
from tests.api.conftest import PASSWORD, World, until

OURS = {"Sec-Fetch-Site": "same-origin"}
FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
    {},
)
HTTPS = {"rate_limits": False, "public_url": "https://qubix.example"}


class CountedPasswords(Passwords):
    """Counts the work of the hasher, and how much of it is done at once."""

    def __init__(self) -> None:
        super().__init__(memory_kib=64, time_cost=1)
        self.verified: list[str] = []
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    async def verify(self, password: str, stored: str | None) -> bool:
        self._inside += 1
        self.most = max(self.most, self._inside)
        try:
            self.verified.append("decoy" if stored is None else "stored")
            await asyncio.sleep(0.005)
            return await super().verify(password, stored)
        finally:
            self._inside -= 1


def counted(world: World) -> CountedPasswords:
    found = CountedPasswords()
    world.resources.__dict__["passwords"] = found
    return found


async def log_in(client: httpx.AsyncClient, email: str = "anna@example.com", password: str = PASSWORD) -> httpx.Response:
    return await client.post("/api/auth/login", json={"email": email, "password": password})


async def test_a_session_given_before_the_login_is_not_the_one_after_and_is_worth_nothing(world: World) -> None:
    """Fixation: Eve leaves her own session in Anna's browser, and waits."""
    anna, eve = await world.person("anna"), await world.person("eve")
    planted = (await log_in(world.client(**OURS), eve.email)).cookies["qubix_session"]
    browser = world.client(Cookie=f"qubix_session={planted}", **OURS)
    answer = await log_in(browser, anna.email)
    after = answer.cookies["qubix_session"]
    assert after != planted
    assert (await world.client(planted).get("/api/auth/me")).status_code == 401, "the old session ended"
    assert (await world.client(after).get("/api/auth/me")).json()["id"] == anna.id
    assert (await eve.http.get("/api/auth/me")).status_code == 200, "her other sessions did not"


async def test_a_cookie_that_somebody_made_up_becomes_no_session(world: World) -> None:
    await world.person("anna")
    made_up = "qs_" + "A" * 43
    answer = await log_in(world.client(Cookie=f"qubix_session={made_up}", **OURS))
    assert answer.status_code == 200
    assert answer.cookies["qubix_session"] != made_up
    assert (await world.client(made_up).get("/api/auth/me")).status_code == 401


@pytest.mark.parametrize("web_settings", [HTTPS], indirect=True)
async def test_behind_https_no_neighbouring_host_can_set_the_cookie(world: World) -> None:
    anna = await world.person("anna")
    answer = await log_in(world.client(**OURS), anna.email)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    attributes = {part.strip().lower() for part in rest.split(";")[1:]}
    assert name == "__Host-qubix_session"
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
    assert not any(part.startswith("domain") for part in attributes)
    token = rest.partition(";")[0]
    tossed = world.client(Cookie=f"qubix_session={token}", **OURS)
    assert (await tossed.get("/api/auth/me")).status_code == 401, "the name that any host could set is not read"
    browser = world.client(Cookie=f"__Host-qubix_session={token}", **OURS)
    gone = (await browser.post("/api/auth/logout")).headers["set-cookie"].lower()
    assert gone.startswith("__host-qubix_session=")
    assert "secure" in gone
    assert "max-age=0" in gone


async def test_no_route_that_changes_something_obeys_a_cookie_from_another_sites_page(world: World) -> None:
    """Each of the document, as a form, as JSON, and without a word of where it comes from: 403, before anything is looked at."""
    await world.person("anna")
    cookie = (await log_in(world.client(**OURS))).cookies["qubix_session"]
    wrong = []
    for (method, path), rule in RULES.items():
        if method == "get" or path.startswith("/agent/"):
            continue
        for headers in FOREIGN:
            for content in ({"data": {"amount": "1"}}, {"json": rule.body if isinstance(rule.body, dict) else {}}):
                client = world.client(Cookie=f"qubix_session={cookie}", **headers)
                path_of_it = path.replace("{", "").replace("}", "") + rule.query
                answer = await client.request(method, path_of_it, **content)  # type: ignore[arg-type]
                if answer.status_code not in {403, 404, 422}:
                    wrong.append(f"{method} {path} {headers}: {answer.status_code} {answer.text[:100]}")
    assert not wrong, "\n".join(wrong)
    events = await world.owner.scalar(sa.text("SELECT count(*) FROM transfers"))
    assert events == 0
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM users")) == 1


async def test_every_documented_route_carries_the_security_headers_also_when_it_refuses(world: World) -> None:
    for path, methods in json.loads(openapi.document())["paths"].items():
        for method in methods:
            headers = (await world.client().request(method, path)).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["x-frame-options"] == "DENY", path
            assert "default-src 'self'" in headers["content-security-policy"], path
            assert headers["cross-origin-opener-policy"] == "same-origin", path
            assert headers["cache-control"] == "no-store", path
            assert headers["x-request-id"], path
            assert "access-control-allow-origin" not in headers, path
            assert "server" not in headers, path


async def test_a_login_that_cannot_succeed_does_the_same_work_as_one_that_can(world: World) -> None:
    await world.person("anna")
    await world.person("gone")
    await world.owner.execute(sa.text("UPDATE users SET disabled_at = now() WHERE email = 'gone@example.com'"))
    hasher = counted(world)
    answers = [
        await log_in(world.client(), email, password)
        for email, password in (
            ("anna@example.com", "a wrong password"),
            ("nobody@example.com", "a wrong password"),
            ("gone@example.com", PASSWORD),
            ("no address at all", "a wrong password"),
            ("anna@example.com", "x" * 1000),
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert hasher.verified == ["stored", "decoy", "decoy", "decoy", "stored"]


async def test_a_hundred_logins_at_once_hash_two_at_a_time_and_leave_the_database_to_others(world: World) -> None:
    await world.person("anna")
    hasher = counted(world)
    logins = [asyncio.create_task(log_in(world.client())) for _ in range(100)]
    await until(lambda: bool(hasher.verified))
    assert (await world.client().get("/api/gpus/models")).status_code == 200
    assert not all(login.done() for login in logins), "others were answered meanwhile"
    answers = await asyncio.gather(*logins)
    assert {answer.status_code for answer in answers} == {200}
    assert hasher.most <= HASHES_AT_ONCE


@pytest.mark.parametrize("web_settings", [{"login_per_minute": 1000, "search_per_minute": 2, "forwarded_hops": 1}], indirect=True)
async def test_behind_a_proxy_only_what_the_proxy_wrote_down_is_the_address(world: World) -> None:
    """A client writes what it likes into X-Forwarded-For; the proxy adds the true address at the end."""
    statuses = [
        (await world.client(**{"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.1"}).get("/api/gpus/models")).status_code
        for number in range(6)
    ]
    assert 429 in statuses[2:]
    assert (await world.client(**{"X-Forwarded-For": "192.0.2.2"}).get("/api/gpus/models")).status_code == 200


@pytest.mark.parametrize("web_settings", [{"search_per_minute": 2}], indirect=True)
async def test_without_a_proxy_no_header_is_believed(world: World) -> None:
    statuses = [(await world.client(**{"X-Forwarded-For": f"192.0.2.{number}"}).get("/api/gpus/models")).status_code for number in range(6)]
    assert 429 in statuses[2:]


BUCKETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "login": ("POST", "/api/wallet/challenge", {"json": {"identity": "A" * 60}}),
    "money": ("POST", "/api/wallets/faucet", {"json": {"amount": 1}}),
    "upload": ("GET", "/api/uploads", {}),
    "search": ("GET", "/api/gpus/models", {}),
    "default": ("GET", "/api/auth/me", {}),
}


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("web_settings", [{f"{bucket}_per_minute": 5 for bucket in BUCKETS}], indirect=True, ids=["five a minute of each"])
async def test_each_kind_of_request_has_a_limit_of_its_own(world: World, bucket: str) -> None:
    anna = await world.person("anna")
    method, path, content = BUCKETS[bucket]
    answers = [await anna.http.request(method, path, **content) for _ in range(14)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 4, "two windows let at most ten through"
    assert {answer.json()["bucket"] for answer in refused} == {bucket}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)


async def test_fifty_repeats_at_once_move_money_once_and_get_one_answer(served: World) -> None:
    anna, bert = await served.person("anna"), await served.person("bert")
    key = {"Idempotency-Key": "pay-0001"}

    async def ask(client: httpx.AsyncClient, amount: int) -> httpx.Response:
        return await client.post("/api/wallets/faucet", json={"amount": amount}, headers=key)

    answers = await asyncio.gather(*(ask(anna.http, 7) for _ in range(50)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 409, 503}, "a busy database may ask for another try"
    assert len({answer.text for answer in good}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in good) <= 1
    again = await ask(anna.http, 7)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    other = await ask(anna.http, 8)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert (await ask(bert.http, 9)).status_code == 200, "another account's key is another key"
    available = [(await person.http.get("/api/wallets/balance")).json()["wallets"][0]["available"] for person in (anna, bert)]
    assert available == [7, 9]
