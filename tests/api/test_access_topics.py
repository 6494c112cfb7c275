"""Nobody hears what is not theirs: every topic of the live view, and the agents' socket, tried by everybody (tests/api/access.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qubix.bootstrap import scope
from qubix.chains.qubic.login import Scheme
from qubix.controller import Controller
from qubix.kernel.events import Event, EventType
from qubix.live.topics import TopicKind
from serve_app import live
from tests.api.access import CONSUMER, EVERYBODY, NOBODY, OTHER_CONSUMER, TOPICS
from tests.api.cast import Cast, make_cast
from tests.api.conftest import PASSWORD, Person, World
from tests.api.machines import machine
from tests.api.test_possession import running
from tests.fakes.wallets import QubicWallet

CLOSED_WITHIN_S = 5


@pytest.fixture
async def cast(served: World) -> Cast:
    return await make_cast(served)


@contextlib.asynccontextmanager
async def opened(world: World, token: str | None) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with connect(f"ws{world.url[4:]}/api/ws", additional_headers=headers) as socket:
        yield socket


async def answer(socket: ClientConnection, topic: str) -> dict[str, Any]:
    """What is said to a subscription."""
    await socket.send(json.dumps({"t": "subscribe", "topics": [topic]}))
    async with asyncio.timeout(5):
        while (said := json.loads(await socket.recv()))["t"] not in {"subscribed", "refused"}:
            pass
    return dict(said)


def test_the_table_has_every_topic() -> None:
    assert set(TOPICS) == set(TopicKind)


async def test_every_topic_answers_everybody_as_the_table_says(cast: Cast) -> None:
    wrong: list[str] = []
    for role in sorted(EVERYBODY):
        async with opened(cast.world, cast.people[role].token if role in cast.people else None) as socket:
            for name, may in TOPICS.values():
                said = await answer(socket, cast.fill(name))
                expected = "subscribed" if role in may else "unauthenticated" if role == NOBODY else "not_found"
                if said.get("code", said["t"]) != expected:
                    wrong.append(f"{role}: {name} -> {said}")
    assert not wrong, "\n".join(wrong)


async def test_ones_own_topics_cannot_be_asked_for_by_anothers_id(cast: Cast) -> None:
    async with opened(cast.world, cast.people[OTHER_CONSUMER].token) as socket:
        for topic in ("wallet", "earnings"):
            assert (await answer(socket, f"{topic}:{cast.people[CONSUMER].id}"))["code"] == "invalid"


async def test_each_account_hears_of_its_own_wallet_alone(cast: Cast) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sockets = {role: await stack.enter_async_context(opened(cast.world, cast.people[role].token)) for role in cast.people}
        for socket in sockets.values():
            assert (await answer(socket, "wallet"))["t"] == "subscribed"
        async with scope(cast.world.resources) as s:
            for person in cast.people.values():
                s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, (f"wallet:{person.id}",), uuid4(), {"whose": person.id}))
        for role, socket in sockets.items():
            # All were published at once: whatever else this socket gets of them comes before the pong.
            told = [json.loads(await asyncio.wait_for(socket.recv(), 5))]
            await socket.send('{"t":"ping"}')
            while told[-1]["t"] != "pong":
                told.append(json.loads(await asyncio.wait_for(socket.recv(), 5)))
            assert [event["payload"]["whose"] for event in told if event["t"] == "event"] == [cast.people[role].id]


@pytest.mark.parametrize("token", ["qs_gone", "qk_gone", "qs_" + "x" * 5000, "qa_gone"])
async def test_a_credential_that_is_none_opens_no_socket(served: World, token: str) -> None:
    with pytest.raises(InvalidStatus):
        async with opened(served, token):
            pass


async def logs_out(world: World, person: Person, token: str) -> None:
    await world.client(token).post("/api/auth/logout")


async def logs_out_everywhere(world: World, person: Person, token: str) -> None:
    await person.http.post("/api/auth/logout", json={"everywhere": True})


async def sets_another_password(world: World, person: Person, token: str) -> None:
    body = {"password": "another long password", "current_password": PASSWORD}
    assert (await person.http.patch("/api/auth/me", json=body)).status_code == 200


async def unlinks_a_wallet(world: World, person: Person, token: str) -> None:
    wallet = QubicWallet()
    asked = (await person.http.post("/api/wallet/challenge", json={"identity": wallet.identity, "purpose": "link"})).json()
    signed = {"nonce": asked["nonce"], "scheme": "manual", "signature": wallet.sign(Scheme.MANUAL, asked["text"])}
    assert (await person.http.post("/api/wallet/connect", json=signed)).status_code == 200
    assert (await person.http.delete(f"/api/wallet/identities/{wallet.identity}")).status_code == 204


async def logs_in_over_it(world: World, person: Person, token: str) -> None:
    """In the browser that has its cookie, as somebody else: the old session ends, and the browser does not have it any more."""
    other = await world.person("berta")
    browser = world.client(**{"Cookie": f"qubix_session={token}", "Sec-Fetch-Site": "same-origin"})
    assert (await browser.post("/api/auth/login", json={"email": other.email, "password": PASSWORD})).status_code == 200


async def signs_up_over_it(world: World, person: Person, token: str) -> None:
    browser = world.client(**{"Cookie": f"qubix_session={token}", "Sec-Fetch-Site": "same-origin"})
    assert (await browser.post("/api/auth/signup", json={"email": "cleo@example.com", "password": PASSWORD})).status_code == 201


async def connects_a_wallet_over_it(world: World, person: Person, token: str) -> None:
    wallet, browser = QubicWallet(), world.client(**{"Cookie": f"qubix_session={token}", "Sec-Fetch-Site": "same-origin"})
    asked = (await browser.post("/api/wallet/challenge", json={"identity": wallet.identity})).json()
    signed = {"nonce": asked["nonce"], "scheme": "manual", "signature": wallet.sign(Scheme.MANUAL, asked["text"])}
    assert (await browser.post("/api/wallet/connect", json=signed)).status_code == 200


ENDS = [
    logs_out,
    logs_out_everywhere,
    sets_another_password,
    unlinks_a_wallet,
    logs_in_over_it,
    signs_up_over_it,
    connects_a_wallet_over_it,
]


@pytest.mark.parametrize("end", ENDS)
async def test_a_session_that_ends_closes_its_sockets(served: World, end: Callable[[World, Person, str], Awaitable[None]]) -> None:
    anna = await served.person("anna")
    token = (await served.client().post("/api/auth/login", json={"email": anna.email, "password": PASSWORD})).json()["access_token"]
    async with opened(served, token) as socket:
        await answer(socket, "wallet")
        await end(served, anna, token)
        assert await _closed(socket) == live.LOGGED_OUT


async def test_a_revoked_key_closes_its_sockets_and_no_others(served: World) -> None:
    anna = await served.person("anna")
    made = (await anna.http.post("/api/auth/keys", json={})).json()
    async with opened(served, made["key"]) as by_key, opened(served, anna.token) as by_session:
        await answer(by_key, "wallet")
        await answer(by_session, "wallet")
        assert (await anna.http.delete(f"/api/auth/keys/{made['id']}")).status_code == 204
        assert await _closed(by_key) == live.LOGGED_OUT
        assert (await answer(by_session, "earnings"))["t"] == "subscribed"


@pytest.mark.parametrize("change", ["UPDATE sessions SET expires_at = now()", "UPDATE users SET disabled_at = now()"])
async def test_a_session_that_expires_or_whose_account_is_disabled_closes_its_sockets(
    served: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Nobody says so: the socket asks by itself, at every beat."""
    monkeypatch.setattr(live, "BEAT_S", 0.2)
    anna = await served.person("anna")
    async with opened(served, anna.token) as socket:
        await answer(socket, "wallet")
        await served.owner.execute(sa.text(change))
        assert await _closed(socket) == live.LOGGED_OUT


async def _closed(socket: ClientConnection) -> int:
    """The code that the socket was closed with, within CLOSED_WITHIN_S."""
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(CLOSED_WITHIN_S):
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_an_agent_reaches_the_bytes_of_its_own_attempts_alone(served: World, controller: Controller) -> None:
    """Whoever else comes, a machine with a session of its own, the job's owner, the provider: refused, and the attempt goes on."""
    provider, rival = await served.person("provider"), await served.person("rival")
    consumer = await served.person("consumer", funds=10_000_000)
    node, other = await machine(served, provider, price=3_600_000), await machine(served, rival, price=7_200_000)
    async with other.connected(), running(served, consumer, node) as attempt:
        assert other.welcome is not None
        assert node.welcome is not None
        base = f"/agent/v1/attempts/{attempt.id}/{attempt.fence}"
        tokens = {"another machine": other.welcome.token, "the job's owner": consumer.token, "the provider": provider.token, "nobody": None}
        for who, token in tokens.items():
            client = served.client(token)
            answers = [
                await client.put(f"{base}/blobs/{'0' * 64}", content=b"x"),
                await client.get(f"{base}/inputs/a"),
                await client.get(f"{base}/checkpoint"),
            ]
            assert {found.status_code for found in answers} <= {401, 404, 409}, who
        assert (await node.put(attempt, b"result")).status_code == 204
        for method, path in (("GET", "/api/auth/me"), ("GET", "/api/jobs"), ("GET", "/api/nodes/" + str(node.id))):
            assert (await served.client(node.welcome.token).request(method, path)).status_code == 401, "an agent is no user"
