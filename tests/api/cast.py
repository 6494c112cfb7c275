"""The people of the access table (tests/api/access.py), and one thing of each kind."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final
from uuid import uuid4

import httpx

from qubix.chains.qubic.login import Scheme
from tests.api.access import ARBITER, CONSUMER, OPERATOR, OTHER_PROVIDER, PROVIDER, RULES, USERS, Rule
from tests.api.conftest import PASSWORD, Person, World
from tests.fakes.nodes import gpu, join, request
from tests.fakes.wallets import QubicWallet

FUNDS: Final = 100_000


@dataclasses.dataclass
class Cast:
    """The people of the table, and one thing of each kind: the consumer's, or the provider's."""

    world: World
    people: dict[str, Person]
    ids: dict[str, str]

    def client(self, role: str) -> httpx.AsyncClient:
        """The role's client, logged in unless it is nobody's."""
        return self.world.client(self.people[role].token if role in self.people else None)

    async def session(self, role: str) -> str:
        """A session of the role's own, opened now."""
        given = {"email": self.people[role].email, "password": PASSWORD}
        return str((await self.world.client().post("/api/auth/login", json=given)).json()["access_token"])

    async def ask(self, client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
        """Send the request of the table."""
        rule = RULES[method, path]
        return await client.request(method, self.fill(path) + rule.query, **self._content(rule))

    def fill(self, shape: Any) -> Any:
        """A path or body with the ids in place."""
        if isinstance(shape, dict):
            return {name: self.fill(value) for name, value in shape.items()}
        if isinstance(shape, list):
            return [self.fill(value) for value in shape]
        if shape == "{join}":
            return json.loads(request("qj_unknown", [gpu(f"GPU-{uuid4()}")]).model_dump_json())
        return shape.format(**self.ids, random=uuid4().hex) if isinstance(shape, str) else shape

    def _content(self, rule: Rule) -> dict[str, Any]:
        if "filename" in rule.query:
            return {"content": b"1"}
        return {} if rule.body is None else {"json": self.fill(rule.body)}


async def make_cast(world: World) -> Cast:
    """Sign everybody up and make their things."""
    roles = {OPERATOR: ("operator",), ARBITER: ("arbiter",)}
    people = {role: await world.person(role.replace(" ", "."), funds=FUNDS, roles=roles.get(role, ())) for role in sorted(USERS)}
    return Cast(world, people, await _things(world, people))


async def _things(world: World, people: dict[str, Person]) -> dict[str, str]:
    consumer = people[CONSUMER].http
    node = await join(world.resources, owner_id=people[PROVIDER].id, price=3600, gpus=16)
    await join(world.resources, owner_id=people[OTHER_PROVIDER].id, price=7200)
    offers = [offer["id"] for offer in (await consumer.get("/api/gpus/search")).json()["items"]]
    job = (await consumer.post("/api/jobs/create", json={"kind": "mnist", "budget": 100})).json()["job"]["id"]
    wallet, stranger = QubicWallet(), QubicWallet()
    asked = (await consumer.post("/api/wallet/challenge", json={"identity": wallet.identity, "purpose": "link"})).json()
    signed = {"nonce": asked["nonce"], "scheme": "manual", "signature": wallet.sign(Scheme.MANUAL, asked["text"])}
    assert (await consumer.post("/api/wallet/connect", json=signed)).status_code == 200
    return {
        "key_id": (await consumer.post("/api/auth/keys", json={})).json()["id"],
        "identity": wallet.identity,
        "address": wallet.identity,
        "stranger": stranger.identity,
        "transaction_id": (await consumer.get("/api/wallets/transactions?type=deposit")).json()["items"][0]["id"],
        "withdrawal_id": str(uuid4()),
        "offer_id": offers[0],
        "other_offer_id": offers[1],
        "quote_id": (await consumer.post("/api/quotes", json={"kind": "mnist"})).json()["quote"]["id"],
        "upload_id": (await consumer.post("/api/uploads?filename=mine.py", content=b"2")).json()["id"],
        "job_id": job,
        "escrow_id": job,
        "provider_id": str(node.provider_id),
        "node_id": str(node.node_id),
        "attempt_id": str(uuid4()),
        "fence": "1",
        "sha256": "0" * 64,
        "name": "a",
    }
