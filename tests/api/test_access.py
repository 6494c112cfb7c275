"""Nobody reads or changes what is not theirs: every route with an id, tried by everybody."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from qubix.chains.qubic.login import Scheme
from serve_app import openapi
from tests.api.conftest import Person, World
from tests.fakes.nodes import join
from tests.fakes.wallets import QubicWallet

EVERYBODY = frozenset({"owner", "other", "provider", "operator", "nobody"})


@dataclasses.dataclass(frozen=True)
class Rule:
    """Who may: roles that do not get 401 or 404. body, sent with it."""

    may: frozenset[str]
    body: Any = None


RULES: dict[tuple[str, str], Rule] = {
    ("delete", "/api/auth/keys/{key_id}"): Rule(frozenset({"owner"})),
    ("delete", "/api/wallet/identities/{identity}"): Rule(frozenset({"owner"})),
    ("get", "/api/wallet/{address}/balance"): Rule(frozenset({"owner"})),
    ("get", "/api/wallets/transactions/{transaction_id}"): Rule(frozenset({"owner"})),
    ("delete", "/api/wallets/withdrawals/{withdrawal_id}"): Rule(frozenset()),
    ("get", "/api/gpus/{offer_id}"): Rule(EVERYBODY),
    ("get", "/api/quotes/{quote_id}"): Rule(frozenset({"owner"})),
    ("delete", "/api/quotes/{quote_id}"): Rule(frozenset({"owner"})),
    ("delete", "/api/uploads/{upload_id}"): Rule(frozenset({"owner"})),
    ("get", "/api/jobs/{job_id}"): Rule(frozenset({"owner"})),
    ("post", "/api/jobs/{job_id}/cancel"): Rule(frozenset({"owner"})),
    ("get", "/api/jobs/{job_id}/logs"): Rule(frozenset({"owner"})),
    ("get", "/api/jobs/{job_id}/timeline"): Rule(frozenset({"owner"})),
    ("get", "/api/jobs/{job_id}/payment"): Rule(frozenset()),
    ("get", "/api/jobs/{job_id}/artefacts"): Rule(frozenset({"owner"})),
    ("get", "/api/jobs/{job_id}/artefacts/{name}"): Rule(frozenset()),
    ("get", "/api/escrows/{escrow_id}"): Rule(frozenset({"owner", "operator"})),
    ("post", "/api/escrows/{escrow_id}/dispute"): Rule(frozenset({"owner"}), {"evidence": "it is wrong"}),
    ("post", "/api/escrows/{escrow_id}/resolve"): Rule(frozenset({"operator"}), {"to_payee": 0, "reason": "so"}),
    ("get", "/api/providers/{provider_id}"): Rule(EVERYBODY),
    ("get", "/api/nodes/{node_id}"): Rule(frozenset({"provider"})),
    ("patch", "/api/nodes/{node_id}"): Rule(frozenset({"provider"}), {"paused": False}),
    ("post", "/api/nodes/{node_id}/drain"): Rule(frozenset({"provider"}), {"draining": False}),
    ("post", "/api/nodes/{node_id}/leave"): Rule(frozenset({"provider"})),
    ("put", "/agent/v1/attempts/{attempt_id}/{fence}/blobs/{sha256}"): Rule(frozenset()),
    ("get", "/agent/v1/attempts/{attempt_id}/{fence}/inputs/{name}"): Rule(frozenset()),
    ("get", "/agent/v1/attempts/{attempt_id}/{fence}/checkpoint"): Rule(frozenset()),
}
"""`operator` here is also an arbiter. No payment was asked for the owner's job (test_paid_on_chain has one that was), and no chain has
withdrawals here (test_chain_money). The agents' routes take a session's token and nothing else."""


def routes_with_an_id() -> set[tuple[str, str]]:
    paths = json.loads(openapi.document())["paths"]
    return {(method, path) for path, methods in paths.items() if "{" in path for method in methods}


def test_the_matrix_knows_every_route_with_an_id() -> None:
    assert set(RULES) == routes_with_an_id()


def test_every_other_route_is_about_the_caller_or_public() -> None:
    paths = json.loads(openapi.document())["paths"]
    public = {"/api/auth/signup", "/api/auth/login", "/agent/v1/join", "/health/live", "/health/ready", "/metrics"}
    for path, methods in paths.items():
        if "{" not in path and path not in public:
            assert all(operation.get("security") for operation in methods.values()), path


@pytest.fixture
async def people(world: World) -> dict[str, httpx.AsyncClient]:
    provider = await world.person("provider")
    found: dict[str, Person] = {
        "owner": await world.person("owner", funds=100_000),
        "other": await world.person("other"),
        "provider": provider,
        "operator": await world.person("operator", roles=("operator", "arbiter")),
    }
    return {**{name: person.http for name, person in found.items()}, "nobody": world.client()}


async def ids_of(world: World, people: dict[str, httpx.AsyncClient]) -> dict[str, str]:
    """One thing of each kind: the owner's, or the provider's."""
    owner = people["owner"]
    me = (await people["provider"].get("/api/auth/me")).json()["id"]
    node = await join(world.resources, owner_id=me, price=3600, gpus=2)
    offer = (await owner.get("/api/gpus/search")).json()["items"][0]["id"]
    job = (await owner.post("/api/jobs/create", json={"kind": "mnist", "budget": 100})).json()["job"]["id"]
    quote = (await owner.post("/api/quotes", json={"kind": "mnist"})).json()["quote"]["id"]
    wallet = QubicWallet()
    asked = (await owner.post("/api/wallet/challenge", json={"identity": wallet.identity, "purpose": "link"})).json()
    signed = {"nonce": asked["nonce"], "scheme": "manual", "signature": wallet.sign(Scheme.MANUAL, asked["text"])}
    assert (await owner.post("/api/wallet/connect", json=signed)).status_code == 200
    return {
        "key_id": (await owner.post("/api/auth/keys", json={})).json()["id"],
        "identity": wallet.identity,
        "address": wallet.identity,
        "transaction_id": (await owner.get("/api/wallets/transactions?type=deposit")).json()["items"][0]["id"],
        "withdrawal_id": str(uuid4()),
        "offer_id": offer,
        "quote_id": quote,
        "upload_id": (await owner.post("/api/uploads?filename=a.py", content=b"1")).json()["id"],
        "job_id": job,
        "escrow_id": job,
        "provider_id": str(node.provider_id),
        "node_id": str(node.node_id),
        "attempt_id": str(uuid4()),
        "fence": "1",
        "sha256": "0" * 64,
        "name": "a",
    }


async def test_another_users_things_do_not_exist(world: World, people: dict[str, httpx.AsyncClient]) -> None:
    ids = await ids_of(world, people)
    wrong: list[str] = []
    # Those who may not come first, and the owner's deletions last, so that a refusal is never for want of the thing; the wallet's
    # removal ends the owner's session.
    order: Callable[[tuple[str, str]], tuple[bool, bool, str]] = lambda route: (  # noqa: E731
        route[0] == "delete" or route[1].endswith("leave"),
        "identity" in route[1],
        route[1],
    )
    for allowed in (False, True):
        for method, path in sorted(RULES, key=order):
            rule = RULES[method, path]
            for name, client in people.items():
                if (name in rule.may) is not allowed:
                    continue
                answer = await client.request(method, path.format(**ids), json=rule.body)
                refused = answer.status_code in ({401} if name == "nobody" or path.startswith("/agent/") else {404})
                if refused is allowed:
                    wrong.append(f"{name}: {method} {path} -> {answer.status_code} {answer.text[:120]}")
    assert wrong == []


async def test_random_ids_look_like_anothers(world: World, people: dict[str, httpx.AsyncClient]) -> None:
    for method, path in sorted(RULES):
        if path.startswith("/agent/"):
            continue
        ids = {name: str(uuid4()) for name in re.findall(r"{(\w+)}", path)}
        ids |= {"address": QubicWallet().identity, "name": "a"}
        answer = await people["other"].request(method, path.format(**ids), json=RULES[method, path].body)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
