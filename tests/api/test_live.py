"""The WebSocket: topics, resuming, ownership, slow readers, ends told once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qubix.agent.protocol import Accept, Ack, Exit, Finished, Grant, Log, Metrics, Progress, Running, Stream
from qubix.bootstrap import scope
from qubix.controller import Controller
from qubix.kernel.events import Event, EventType
from qubix.live.feed import RECENT_MAX
from serve_app.live import LOGGED_OUT, TOO_LARGE
from tests.api.conftest import PASSWORD, Person, World
from tests.api.machines import machine
from tests.fakes.nodes import join, sample


@contextlib.asynccontextmanager
async def follow(world: World, person: Person | None, *topics: str, position: int | None = None) -> AsyncIterator[ClientConnection]:
    """A connected client that has subscribed; what it asked for from the past it has yet to read."""
    headers = {"Authorization": f"Bearer {person.token}"} if person else {}
    async with connect(f"ws{world.url[4:]}/api/ws", additional_headers=headers) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": list(topics), "from_position": position}))
        if topics and position is None:
            await hear(socket, "subscribed")
        yield socket


async def hear(socket: ClientConnection, t: str, *, timeout_s: float = 5, **members: Any) -> dict[str, Any]:
    """The next message of this kind with these members."""
    async with asyncio.timeout(timeout_s):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["t"] == t and all(message.get(name) == value for name, value in members.items()):
                return message


async def drain(socket: ClientConnection, wait_s: float = 0.5) -> list[dict[str, Any]]:
    """Everything that comes until it is silent."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(wait_s):
                found.append(json.loads(await socket.recv()))
    return found


async def publish(world: World, *topics: str, n: int = 0, key: str | None = None) -> None:
    async with scope(world.resources) as s:
        s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, topics, uuid4(), {"n": n}, key))


@pytest.mark.alone  # a deadline
async def test_p_a03_every_marketplace_client_hears_of_a_registration_within_two_seconds(served: World) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(follow(served, None, "marketplace")) for _ in range(20)]
        begun = time.monotonic()
        joined = await join(served.resources)
        for socket in sockets:
            event = await hear(socket, "event", event="PROVIDER_REGISTERED")
            assert event["payload"]["node_id"] == str(joined.node_id)
        assert time.monotonic() - begun < 2


async def test_positions_of_snapshots_lead_into_the_stream(served: World) -> None:
    anna = await served.person("anna", funds=5)
    position = (await anna.http.get("/api/wallets/balance")).json()["position"]
    await anna.http.post("/api/wallets/faucet", json={"amount": 7})
    async with follow(served, anna, "wallet", position=position) as socket:
        assert (await hear(socket, "event"))["payload"]["change"] in (5, 7)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["publish", "drop"]), min_size=4, max_size=10))
async def test_p_a10_a_client_that_drops_misses_nothing(served: World, steps: list[str]) -> None:
    seen: list[int] = []
    async with scope(served.resources) as s:
        position = int(await s.connection.scalar(sa.text("SELECT coalesce(max(position), 0) FROM events")) or 0)
    published = 0
    marker = uuid4().hex
    for step in [*steps, "drop"]:
        async with connect(f"ws{served.url[4:]}/api/ws") as socket:
            await socket.send(json.dumps({"t": "subscribe", "topics": ["marketplace"], "from_position": position}))
            if step == "publish":
                published += 1
                async with scope(served.resources) as s:
                    s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, ("marketplace",), uuid4(), {"n": published, "marker": marker}))
                continue
            while len(seen) < published:
                event = await hear(socket, "event")
                position = event["position"]
                if event["payload"].get("marker") == marker:
                    seen.append(event["payload"]["n"])
    assert seen == list(range(1, published + 1))


async def test_a_subscription_is_confirmed_when_all_its_past_has_come(served: World) -> None:
    """Until then the position of another topic's event says nothing about it: a client that resumed from there would miss its past."""
    async with follow(served, None, "marketplace") as socket:
        for n in range(300):
            await publish(served, "marketplace", n=n)
        while (await hear(socket, "event"))["payload"].get("n") != 299:  # what is committed is published a moment later
            pass
    async with follow(served, None, "marketplace", position=0) as socket:
        told = []
        while (message := json.loads(await socket.recv()))["t"] != "subscribed":
            told.append(message)
        assert [m["payload"]["n"] for m in told if m["t"] == "event" and "n" in m["payload"]] == list(range(300))
        assert message["position"] >= told[-1]["position"]


async def test_past_retention_the_client_is_told_to_take_new_snapshots(served: World) -> None:
    for n in range(5):
        await publish(served, "marketplace", n=n)
    async with follow(served, None, "marketplace") as socket:
        async with scope(served.resources) as s:
            for _ in range(RECENT_MAX):  # the replica answers from what it remembers, and reads what is older
                s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, ("nobody",), uuid4(), {}))
        await publish(served, "marketplace", n=5)
        newest = (await hear(socket, "event", payload={"n": 5}))["position"]
    await served.owner.execute(sa.text("DELETE FROM events WHERE position <= 3"))
    async with follow(served, None) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": ["marketplace"], "from_position": 1}))
        assert (await hear(socket, "resync"))["position"] >= newest
        await hear(socket, "subscribed")
        await publish(served, "marketplace", n=6)
        assert (await hear(socket, "event"))["payload"]["n"] == 6


async def test_a_payer_hears_of_the_escrow_from_its_lock_on(served: World) -> None:
    anna = await served.person("anna", funds=1000)
    await join(served.resources, price=3600)
    job = (await anna.http.post("/api/jobs/create", json={"kind": "mnist", "budget": 100})).json()["job"]["id"]
    async with follow(served, anna) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": [f"escrow:{job}"], "from_position": 0}))
        assert (await hear(socket, "event"))["payload"]["state"] == "LOCKED"


async def test_another_users_topics_are_refused_as_if_they_did_not_exist(served: World) -> None:
    anna, bert = await served.person("anna", funds=1000), await served.person("bert")
    await join(served.resources, price=3600)
    job = (await anna.http.post("/api/jobs/create", json={"kind": "mnist", "budget": 100})).json()["job"]["id"]
    async with follow(served, bert) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": [f"job:{job}", f"escrow:{job}", "nonsense", f"job:{uuid4()}"]}))
        codes = [(await hear(socket, "refused"))["code"] for _ in range(4)]
    assert codes == ["not_found", "not_found", "invalid", "not_found"]
    async with follow(served, None) as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": ["wallet", f"job:{job}"]}))
        assert [(await hear(socket, "refused"))["code"] for _ in range(2)] == ["unauthenticated"] * 2


async def test_a_page_of_another_site_cannot_open_a_socket_with_the_browsers_cookie(served: World) -> None:
    await served.person("anna")
    login = await served.client().post("/api/auth/login", json={"email": "anna@example.com", "password": PASSWORD})
    cookie = {"Cookie": f"qubix_session={login.json()['access_token']}"}
    url = f"ws{served.url[4:]}/api/ws"
    for headers in ({**cookie, "Origin": "https://evil.example"}, cookie, {"Origin": "https://evil.example"}):
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers=headers)
    async with connect(url, additional_headers={**cookie, "Origin": served.url}) as socket:
        await socket.send('{"t":"ping"}')
        await hear(socket, "pong")


async def test_logging_out_closes_the_sockets_of_that_session(served: World) -> None:
    anna = await served.person("anna")
    async with follow(served, anna, "wallet") as socket:
        await anna.http.post("/api/auth/logout")
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket, "never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == LOGGED_OUT


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"t":"sing"}', '{"t":"subscribe"}', '{"t":"subscribe","topics":["job:1"],"from_position":-1}']
)
async def test_a_malformed_message_is_answered_and_the_connection_stays(served: World, text: str) -> None:
    async with follow(served, None, "marketplace") as socket:
        await socket.send(text)
        assert (await hear(socket, "error"))["code"] == "invalid"
        await socket.send('{"t":"ping"}')
        await hear(socket, "pong")


async def test_a_message_past_the_limit_closes_the_connection(served: World) -> None:
    async with follow(served, None, "marketplace") as socket:
        await socket.send(json.dumps({"t": "subscribe", "topics": ["x" * 20_000]}))
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket, "never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == TOO_LARGE


@pytest.mark.alone  # a deadline
async def test_p_b40_the_end_of_a_job_is_told_once_to_each_subscriber_with_its_log_and_progress(
    served: World, controller: Controller
) -> None:
    owner, anna = await served.person("owner"), await served.person("anna", funds=1_000_000)
    node = await machine(served, owner)
    async with node.connected():
        job = (await anna.http.post("/api/jobs/create", json={"kind": "mnist", "duration_max_s": 60})).json()["job"]["id"]
        async with follow(served, anna, f"job:{job}", "wallet") as first, follow(served, anna, f"job:{job}", position=0) as second:
            attempt = await node.work()
            named = {"session": node.session, "attempt": attempt.id, "fence": attempt.fence}
            await node.say(Accept(**named))
            await node.hear(Grant)
            await node.say(Running(**named))
            await node.hear(Ack)
            begun = time.monotonic()
            await node.say(Log(**named, stream=Stream.OUT, offset=0, text="hello\n", node_at=time.time()))
            assert (await hear(first, "live", event="JOB_LOG"))["payload"]["text"] == "hello\n"
            assert time.monotonic() - begun < 1
            await node.say(Progress(**named, pct=50, operation="half", node_at=time.time()))
            assert (await hear(first, "live", event="JOB_PROGRESS"))["payload"]["progress"] == 50
            end = Finished(**named, exit=Exit.EXITED, exit_code=0, agent_ms=5, log_ends={"out": 6})
            for _ in range(3):
                await node.say(end)
            told = [[m for m in await drain(socket, 2) if m.get("event") == "JOB_COMPLETED"] for socket in (first, second)]
            assert [[m["payload"]["state"] for m in messages] for messages in told] == [["COMPLETED"], ["COMPLETED"]]
            async with follow(served, anna, f"job:{job}", position=0) as third:
                assert sum(m.get("event") == "JOB_COMPLETED" for m in await drain(third)) == 1


async def test_a_late_follower_gets_the_last_samples_of_the_machine(served: World) -> None:
    owner = await served.person("owner")
    node = await machine(served, owner)
    async with node.connected(), follow(served, owner, f"provider:{node.provider_id}") as socket:
        sample = await hear(socket, "live", event="GPU_METRICS_UPDATE")
        assert sample["payload"]["temperature_c"] == 50.0


async def test_a_machine_measures_only_the_devices_that_it_has(served: World) -> None:
    owner = await served.person("owner")
    node = await machine(served, owner)
    uuids = [device.uuid for device in node.facts.devices]
    async with node.connected(), follow(served, owner, f"provider:{node.provider_id}") as socket:
        await node.say(Metrics(session=node.session, sample=sample(["GPU-of-another", *uuids])))
        await node.beat()
        heard = [message for message in await drain(socket) if message["t"] == "live"]
        assert {message["payload"]["uuid"] for message in heard} == set(uuids)
