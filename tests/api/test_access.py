"""Nobody reads or changes what is not theirs: every route of the OpenAPI document, tried by everybody (tests/api/access.py)."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from qubix.identity.model import Scope as Grant
from serve_app import openapi
from tests.api.access import ARBITER, CONSUMER, EVERYBODY, NOBODY, RULES, Rule
from tests.api.cast import Cast, make_cast
from tests.api.conftest import World
from tests.fakes.wallets import QubicWallet


@pytest.fixture
async def cast(world: World) -> Cast:
    return await make_cast(world)


def documented() -> dict[tuple[str, str], dict[str, Any]]:
    paths = json.loads(openapi.document())["paths"]
    return {(method, path): operation for path, methods in paths.items() for method, operation in methods.items()}


def test_the_table_has_every_route_and_no_other() -> None:
    assert set(RULES) == set(documented())


def test_what_the_document_calls_open_and_what_the_table_does_are_the_same() -> None:
    for route, operation in documented().items():
        open_to_all = {} in operation.get("security", [{}])
        assert open_to_all is (RULES[route].may == EVERYBODY), route


def expected(rule: Rule, path: str, role: str) -> int:
    if role in rule.may:
        return rule.status
    return 401 if role == NOBODY or path.startswith("/agent/") else 404


async def test_every_route_answers_everybody_as_the_table_says(cast: Cast) -> None:
    """Those who may not come first, so that a refusal is never for want of the thing; then all others, each in a session of its own."""
    wrong: list[str] = []
    for allowed in (False, True):
        for (method, path), rule in RULES.items():
            for role in sorted(role for role in EVERYBODY if (role in rule.may) is allowed):
                client = cast.world.client(await cast.session(role)) if allowed and role != NOBODY else cast.client(role)
                answer = await cast.ask(client, method, path)
                if answer.status_code != expected(rule, path, role):
                    wrong.append(f"{role}: {method} {path} -> {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def ended_credentials(cast: Cast) -> dict[str, str]:
    """Tokens of the consumer that were good until a moment ago."""
    world, consumer = cast.world, cast.people[CONSUMER]
    logged_out, expired = await cast.session(CONSUMER), await cast.session(CONSUMER)
    await world.client(logged_out).post("/api/auth/logout")
    await world.owner.execute(
        sa.text("UPDATE sessions SET expires_at = now() WHERE token_hash = sha256(convert_to(:token, 'UTF8'))"), {"token": expired}
    )
    revoked = (await consumer.http.post("/api/auth/keys", json={"scopes": [grant.value for grant in Grant]})).json()
    assert (await world.client(revoked["key"]).delete(f"/api/auth/keys/{revoked['id']}")).status_code == 204
    disabled = await world.person("disabled")
    await world.owner.execute(sa.text("UPDATE users SET disabled_at = now() WHERE email = 'disabled@example.com'"))
    return {
        "logged out": logged_out,
        "expired": expired,
        "revoked key": revoked["key"],
        "disabled": disabled.token,
        "agent's of nobody": "qa_" + "x" * 43,
        "far too long": "qs_" + "x" * 5000,
    }


async def test_a_credential_that_is_no_longer_good_opens_nothing(cast: Cast) -> None:
    wrong: list[str] = []
    for name, token in (await ended_credentials(cast)).items():
        client = cast.world.client(token)
        for (method, path), rule in RULES.items():
            if rule.reads:
                answer = await cast.ask(client, method, path)
                if answer.status_code != 401 or answer.headers.get("www-authenticate") != "Bearer":
                    wrong.append(f"{name}: {method} {path} -> {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_browsers_ended_session_is_nobody(cast: Cast) -> None:
    ended = (await ended_credentials(cast))["logged out"]
    client = cast.world.client(Cookie=f"qubix_session={ended}", **{"Sec-Fetch-Site": "same-origin"})
    wrong: list[str] = []
    for (method, path), rule in RULES.items():
        answer = await cast.ask(client, method, path)
        if answer.status_code != (rule.status if NOBODY in rule.may else 401):
            wrong.append(f"{method} {path} -> {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_key_needs_the_scope_of_the_route_and_no_other(cast: Cast) -> None:
    """Each role that may come first, by a key that lacks one scope and by a key that has no other, in this order."""
    wrong: list[str] = []
    for (method, path), rule in RULES.items():
        if rule.grant is None or not rule.may:
            continue
        role = sorted(rule.may)[0]
        rest = [grant.value for grant in Grant if grant is not rule.grant]
        for scopes, good in ((rest, False), ([rule.grant.value], True)):
            answer = await cast.ask(cast.world.client(await _key(cast, role, scopes)), method, path)
            missing = answer.status_code == 401 and answer.json()["code"] == "scope_missing"
            if missing is good or (good and answer.status_code != rule.status):
                wrong.append(f"{scopes}: {method} {path} -> {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def _key(cast: Cast, role: str, scopes: list[str]) -> str:
    """A key for one request: an account may have only so many."""
    await cast.world.owner.execute(sa.text("DELETE FROM api_keys WHERE name = 'test'"))
    made = await cast.world.client(await cast.session(role)).post("/api/auth/keys", json={"name": "test", "scopes": scopes})
    return str(made.json()["key"])


async def test_nobodys_lists_name_anothers_things(cast: Cast) -> None:
    """Every route that lists, asked by those whose things these are not."""
    public = {"offer_id", "other_offer_id", "provider_id", "node_id", "fence", "name", "sha256", "stranger", "attempt_id", "withdrawal_id"}
    secret = {name: value for name, value in cast.ids.items() if name not in public}
    secret["email"] = f'"{cast.people[CONSUMER].email}"'
    lists = [path for (method, path), rule in RULES.items() if method == "get" and "{" not in path]
    seen_by_owner = ""
    for path in lists:
        seen_by_owner += (await cast.client(CONSUMER).get(path)).text
        for role in sorted(EVERYBODY - {CONSUMER}):
            told = (await cast.client(role).get(path)).text
            assert [name for name, value in secret.items() if value in told] == [], f"{role}: {path}"
    missing = {name for name, value in secret.items() if value not in seen_by_owner}
    assert missing == {"quote_id"}, "a quote has no list"


async def test_random_ids_look_like_anothers(cast: Cast) -> None:
    for (method, path), rule in RULES.items():
        if "{" not in path or path.startswith("/agent/"):
            continue
        strange = dataclasses.replace(cast, ids=cast.ids | {name: str(uuid4()) for name in re.findall(r"{(\w+)}", path)})
        strange.ids |= {"address": QubicWallet().identity, "name": "a"}
        answer = await strange.ask(cast.client(ARBITER), method, path)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {rule}"
