"""What an API key may do is what its scopes say, on every way in."""

from __future__ import annotations

import json

import sqlalchemy as sa
from websockets.asyncio.client import connect

from tests.api.conftest import World
from tests.fakes.nodes import join


async def test_a_key_makes_no_key_that_may_do_more_than_itself(world: World) -> None:
    anna = await world.person("anna")
    keeper = world.client(await anna.api_key(scopes=["account", "read"]))
    for scopes in (["money"], ["account", "read", "jobs"], None):
        answer = await keeper.post("/api/auth/keys", json={"scopes": scopes})
        assert (answer.status_code, answer.json()["code"]) == (401, "scope_missing"), scopes
    assert (await keeper.post("/api/auth/keys", json={"scopes": ["read"]})).status_code == 201
    assert len((await anna.http.get("/api/auth/keys")).json()["items"]) == 2


async def test_a_key_without_the_account_does_not_log_its_owner_out(world: World) -> None:
    anna = await world.person("anna")
    reader = world.client(await anna.api_key(scopes=["read"]))
    assert (await reader.post("/api/auth/logout", json={"everywhere": True})).status_code == 401
    assert (await anna.http.get("/api/auth/me")).status_code == 200


async def test_a_key_that_may_not_read_follows_only_what_is_public(served: World) -> None:
    anna = await served.person("anna")
    key = await anna.api_key(scopes=["provider"])
    async with connect(f"ws{served.url[4:]}/api/ws", additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": ["wallet", "earnings", "marketplace"]}))
        said = [json.loads(await socket.recv()) for _ in range(3)]
    assert [(message["t"], message.get("code")) for message in said] == [
        ("refused", "scope_missing"),
        ("refused", "scope_missing"),
        ("subscribed", None),
    ]
    assert said[2]["topics"] == ["marketplace"]


async def test_looking_at_ones_machine_tells_nobody_anything(world: World) -> None:
    owner = await world.person("owner")
    node = await join(world.resources, owner_id=owner.id)
    before = await world.owner.scalar(sa.text("SELECT count(*) FROM events"))
    reader = world.client(await owner.api_key(scopes=["read"]))
    assert (await reader.get(f"/api/nodes/{node.node_id}")).status_code == 200
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM events")) == before
