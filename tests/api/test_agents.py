"""The agents' endpoint: who may speak for a machine, and what a broken one hears."""

from __future__ import annotations

import asyncio
import contextlib
import json
from uuid import uuid4

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from qubix.agent.protocol import Desired, Hello, Metrics, Progress, Refused, Running, Stop, parse_down
from qubix.fabric.node import installed_versions
from serve_app import agents
from serve_app.limits import ADDRESS_FACTOR
from serve_app.web import AGENT_TURNS_MAX
from tests.api.conftest import World
from tests.api.machines import machine
from tests.fakes.nodes import sample


async def refusal(world: World, *texts: str) -> Refused:
    """What the server says last to somebody who sends these texts."""
    async with connect(f"ws{world.url[4:]}/agent/v1/session") as socket:
        await socket.recv()
        for text in texts:
            await socket.send(text)
        frame = parse_down(await socket.recv())
        assert isinstance(frame, Refused)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        return frame


@pytest.mark.parametrize("text", ["{", "[]", '{"t":"hello"}', '{"t":"dance"}', "x" * 2_000_000])
async def test_a_frame_that_cannot_be_read_ends_the_session_with_the_reason(served: World, text: str) -> None:
    assert (await refusal(served, text)).code == "invalid"


async def test_another_key_cannot_speak_for_the_machine(served: World) -> None:
    node = await machine(served, await served.person("owner"))
    node.key = Ed25519PrivateKey.generate()
    with pytest.raises((TimeoutError, ConnectionClosed)):
        async with node.connected():
            pass


async def test_a_join_token_names_the_versions_that_a_node_must_have(served: World) -> None:
    owner = await served.person("owner")
    made = (await owner.http.post("/api/providers/join-tokens")).json()
    here = installed_versions()
    assert (made["qubix_version"], made["ray_version"], made["python_version"]) == (here.qubix, here.ray, here.python)


async def test_a_join_token_works_once(served: World) -> None:
    owner = await served.person("owner")
    first = await machine(served, owner)
    assert first.id
    answer = await served.client().post("/agent/v1/join", json={"token": "qj_unknown"})
    assert answer.status_code == 422
    mine = (await owner.http.get("/api/providers/me")).json()
    assert [node["id"] for node in mine["nodes"]] == [str(first.id)]


async def test_the_newest_session_wins_and_the_older_one_is_told(served: World) -> None:
    node = await machine(served, await served.person("owner"))
    async with node.connected():
        old_socket, old_session = node.socket, node.session
        async with node.connected():
            assert old_socket is not None
            uuids = [device.uuid for device in node.facts.devices]
            await old_socket.send(Metrics(session=old_session, sample=sample(uuids)).model_dump_json())
            heard = []
            with pytest.raises(ConnectionClosed):
                while True:
                    heard.append(json.loads(await old_socket.recv())["t"])
            assert heard[-1] == "refused"
            await node.beat()
            await node.hear(Desired)


async def test_the_offer_of_a_machine_that_connects_is_rentable_at_once(served: World) -> None:
    owner = await served.person("owner")
    node = await machine(served, owner, price=1234)
    assert (await served.client().get("/api/gpus/search")).json()["items"] == []
    async with node.connected():
        (item,) = (await served.client().get("/api/gpus/search")).json()["items"]
        assert (item["price_per_hour"], item["status"]) == (1234, "available")
        await owner.http.patch(f"/api/nodes/{node.id}", json={"price_per_hour": 99, "region": "us-east"})
        (item,) = (await served.client().get("/api/gpus/search?region=us")).json()["items"]
        assert item["price_per_hour"] == 99
        await owner.http.post(f"/api/nodes/{node.id}/drain")
        assert (await served.client().get("/api/gpus/search")).json()["items"] == []


@pytest.mark.parametrize("figure", ["NaN", "Infinity"])
async def test_a_figure_that_no_browser_reads_ends_the_session(served: World, figure: str) -> None:
    node = await machine(served, await served.person("owner"))
    async with node.connected():
        assert node.socket is not None
        text = Metrics(session=node.session, sample=sample([])).model_dump_json()
        node_at = json.loads(text)["sample"]["node_at"]
        await node.socket.send(text.replace(f'"node_at":{node_at}', f'"node_at":{figure}'))
        assert (await node.hear(Refused)).code == "invalid"


async def test_a_beat_that_cannot_be_stored_ends_its_own_session_and_no_other(served: World) -> None:
    owner = await served.person("owner")
    good, broken = await machine(served, owner), await machine(served, owner)
    async with good.connected(), broken.connected():
        await good.beat()
        await good.hear(Desired)
        assert broken.socket is not None
        await broken.socket.send(Metrics(session=broken.session, sample=sample(["GPU-"])).model_dump_json().replace("GPU-", "GPU-\\u0000"))
        await good.beat()  # it says nothing new, so it travels with the other's
        await good.hear(Desired)
        with pytest.raises(ConnectionClosed):
            await broken.hear(Desired)
        await good.beat()
        await good.hear(Desired)


async def test_whoever_greets_without_the_key_waits_for_no_lock_and_takes_no_turn_of_those_who_have_a_session(
    served: World, owner: AsyncConnection
) -> None:
    node, victim = await machine(served, await served.person("owner")), await machine(served, await served.person("other"))
    async with node.connected(), contextlib.AsyncExitStack() as crowd:
        await owner.execute(sa.text("BEGIN"))
        await owner.execute(sa.text("SELECT FROM nodes WHERE id = :id FOR UPDATE"), {"id": victim.id})
        for _ in range(AGENT_TURNS_MAX + 2):
            socket = await crowd.enter_async_context(connect(f"ws{served.url[4:]}/agent/v1/session"))
            await socket.recv()
            await socket.send(Hello(node=victim.id, signature="00" * 64, facts=victim.facts).model_dump_json())
            async with asyncio.timeout(5):
                refused = parse_down(await socket.recv())
            assert isinstance(refused, Refused), "and the node's row is locked all the while"
            assert refused.code == "hello_refused"
        try:
            await node.say(Progress(session=node.session, attempt=uuid4(), fence=1, pct=1, node_at=1.0))
            async with asyncio.timeout(5):
                await node.hear(Stop)
        finally:
            await owner.execute(sa.text("ROLLBACK"))


@pytest.mark.parametrize(("limit", "volatile"), [("VOLATILE_MAX", True), ("FRAMES_MAX", False)])
async def test_a_machine_that_floods_is_cut_off_with_the_reason_and_comes_back(
    served: World, monkeypatch: pytest.MonkeyPatch, limit: str, volatile: bool
) -> None:
    node = await machine(served, await served.person("owner"))
    async with node.connected():
        monkeypatch.setattr(agents, limit, 20)
        text = Progress(session=node.session, attempt=uuid4(), fence=1, pct=1, node_at=1.0).model_dump_json()
        if not volatile:
            text = Running(session=node.session, attempt=uuid4(), fence=1).model_dump_json()
        assert node.socket is not None
        with contextlib.suppress(ConnectionClosed):
            for _ in range(40):
                await node.socket.send(text)
        assert (await node.hear(Refused)).code == "rate_limited"
        with pytest.raises(ConnectionClosed) as closed:
            await node.hear(Desired)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == agents.TOO_OFTEN
    monkeypatch.undo()
    async with node.connected():
        await node.beat()
        await node.hear(Desired)


@pytest.mark.parametrize("web_settings", [{"rate_limits": True, "login_per_minute": 4}], indirect=True)
async def test_an_address_whose_greetings_are_refused_too_often_waits_in_a_lane_of_its_own_and_no_machine_there_is_shut_out(
    served: World,
) -> None:
    known, new = [await machine(served, await served.person(name)) for name in ("owner", "other")]
    async with known.connected():
        pass
    hello = Hello(node=known.id, signature="00" * 64, facts=known.facts)
    unknown = hello.model_copy(update={"node": uuid4()}).model_dump_json()
    codes = [(await refusal(served, unknown)).code for _ in range(4 * ADDRESS_FACTOR + 1)]
    assert set(codes) == {"hello_refused"}
    async with new.connected():  # as all are after a restart of the web layer, which forgets who was good
        await new.beat()
    async with known.connected():
        await known.beat()
