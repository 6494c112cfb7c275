"""The application over a real database: in process by ASGI, or in a server of its own with real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources
from qubix.controller import Controller
from qubix.identity.passwords import Passwords
from qubix.kernel.tasks import end
from serve_app.app import create_app
from tests.conftest import Database

PASSWORD = "correct horse battery"


@dataclasses.dataclass
class Person:
    """An account and its ways in."""

    id: str
    email: str
    token: str
    http: httpx.AsyncClient

    async def api_key(self, **body: Any) -> str:
        """A fresh API key of this account."""
        answer = await self.http.post("/api/auth/keys", json={"name": "test", **body})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])


@dataclasses.dataclass
class World:
    """A platform under test: `url`, its resources, and people who come to it."""

    url: str
    resources: Resources
    owner: AsyncConnection
    transport: Callable[[], httpx.AsyncBaseTransport]
    clients: list[httpx.AsyncClient] = dataclasses.field(default_factory=list)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client, logged in by a bearer token, or nobody."""
        given = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
        client = httpx.AsyncClient(base_url=self.url, headers=given, transport=self.transport(), timeout=30)
        self.clients.append(client)
        return client

    async def person(self, name: str, *, funds: int = 0, roles: tuple[str, ...] = ()) -> Person:
        """Sign somebody up; give test funds and roles."""
        email = f"{name}@example.com"
        answer = await self.client().post("/api/auth/signup", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        person = Person(body["user"]["id"], email, body["access_token"], self.client(body["access_token"]))
        if roles:
            await self.owner.execute(
                sa.text("UPDATE users SET roles = :roles WHERE id = cast(:id AS uuid)").bindparams(
                    sa.bindparam("roles", type_=sa.ARRAY(sa.Text))
                ),
                {"roles": list(roles), "id": person.id},
            )
        if funds:
            answer = await person.http.post("/api/wallets/faucet", json={"amount": funds})
            assert answer.status_code == 200, answer.text
        return person

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()


async def until(condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
    """Wait for a condition. Raises: TimeoutError."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)


@pytest.fixture
def web_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the platform under test; a test names its own with `@pytest.mark.parametrize("web_settings", …)`."""
    return getattr(request, "param", {"rate_limits": False})


@pytest.fixture
async def web_resources(database: Database, owner: AsyncConnection, web_settings: dict[str, Any]) -> AsyncIterator[Resources]:
    """Resources of the web role over a ledger that was born on the settings' network, none unless a test says otherwise.

    Passwords cost little here: nearly every test signs people up, and none but those of the hasher itself is about that cost.
    """
    await owner.execute(sa.text("SELECT found_ledger(:network)"), {"network": web_settings.get("network", "none")})
    held = database.resources(**web_settings)
    held.__dict__["passwords"] = Passwords(memory_kib=64, time_cost=1)
    yield held
    await held.close()


@pytest.fixture
async def controller(database: Database, web_resources: Resources, web_settings: dict[str, Any]) -> AsyncIterator[Controller]:
    """A controller at work beside the web layer."""
    held = database.resources("qubix_controller", **web_settings)
    found = Controller(held, holder="test")
    working = asyncio.create_task(found.run())
    yield found
    await end([working])
    await held.close()


@pytest.fixture
async def world(web_resources: Resources, owner: AsyncConnection) -> AsyncIterator[World]:
    """The application in this process, without sockets."""
    app = create_app(web_resources)
    async with app.router.lifespan_context(app):
        found = World("http://qubix.test", web_resources, owner, lambda: httpx.ASGITransport(app))
        yield found
        await found.close()


@pytest.fixture
async def served(web_resources: Resources, owner: AsyncConnection) -> AsyncIterator[World]:
    """The application behind uvicorn on a free port, for WebSockets and broken bodies."""
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle on: 40 ms an answer
    listening.bind(("127.0.0.1", 0))
    app = create_app(web_resources)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False, timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started)
    found = World(f"http://127.0.0.1:{listening.getsockname()[1]}", web_resources, owner, httpx.AsyncHTTPTransport)
    yield found
    await found.close()
    server.should_exit = True
    async with asyncio.timeout(60):
        await serving
