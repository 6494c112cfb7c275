"""The web layer as it runs in production: Ray Serve's replica behind the HAProxy ingress, pinned to the head."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest
from websockets.sync.client import connect

from qubix.fabric.head import Head, start_head
from qubix.postgres.embedded import EmbeddedServer, free_port
from tests.conftest import clone, drop

pytestmark = pytest.mark.cluster
UPLOAD_BYTES = 200 * 1000 * 1000


class Deployed:
    """A running web layer."""

    def __init__(self, url: str, head: Head) -> None:
        self.url = url
        self.head = head

    def replicas(self) -> list[psutil.Process]:
        """The processes of Serve's replicas."""
        found = [psutil.Process(member.pid) for member in self.head.process.members() if psutil.pid_exists(member.pid)]
        return [process for process in found if "ServeReplica" in " ".join(process.cmdline())]


@pytest.fixture(scope="module")
def deployed(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = Path(f"/tmp/q{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    name = f"t_{uuid4().hex[:12]}"
    asyncio.run(clone(postgres, name))
    asyncio.run(_found(postgres.url(database=name)))
    url_file = folder / "web.url"
    url_file.write_text(postgres.url("qubix_web", name))
    url_file.chmod(0o600)
    settings = {
        "QUBIX_DATABASE_URL_FILE": str(url_file),
        "QUBIX_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "QUBIX_LIVE_HUB": "ray",
        "QUBIX_RATE_LIMITS": "false",
    }
    head = start_head(folder, extra_environment=settings)
    try:
        port = free_port()
        command = [sys.executable, "-m", "serve_app.deployment", "--port", str(port)]
        environment = {**head.environment, **settings, "QUBIX_RAY_ADDRESS": head.where.address, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == f"ready http://127.0.0.1:{port}\n"
        yield Deployed(f"http://127.0.0.1:{port}", head)
    finally:
        head.stop()
        asyncio.run(drop(postgres, name))
        shutil.rmtree(folder, ignore_errors=True)


async def _found(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT found_ledger('none')")
    await connection.close()


def sign_up(url: str) -> dict[str, Any]:
    answer = httpx.post(f"{url}/api/auth/signup", json={"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_the_replica_runs_on_the_head_and_answers_in_our_own_words(deployed: Deployed) -> None:
    assert len(deployed.replicas()) == 1
    assert httpx.get(f"{deployed.url}/health/live").json() == {"status": "live"}
    answer = httpx.get(f"{deployed.url}/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_client_follows_its_wallet_through_the_ingress(deployed: Deployed) -> None:
    person = sign_up(deployed.url)
    headers = {"Authorization": f"Bearer {person['access_token']}"}
    with connect(f"ws{deployed.url[4:]}/api/ws", additional_headers=headers) as socket:
        socket.send(json.dumps({"t": "subscribe", "topics": ["wallet"]}))
        assert json.loads(socket.recv(timeout=5))["t"] == "subscribed"
        begun = time.monotonic()
        httpx.post(f"{deployed.url}/api/wallets/faucet", json={"amount": 5}, headers=headers).raise_for_status()
        event = json.loads(socket.recv(timeout=5))
        assert (event["event"], event["payload"]["change"]) == ("WALLET_UPDATE", 5)
        assert time.monotonic() - begun < 2


def test_a_large_upload_grows_the_replica_by_at_most_twenty_megabytes(deployed: Deployed) -> None:
    person = sign_up(deployed.url)
    headers = {"Authorization": f"Bearer {person['access_token']}"}
    (replica,) = deployed.replicas()
    piece = secrets.token_bytes(1_000_000)
    _upload(deployed.url, headers, piece, 4, "warm.bin")
    before = replica.memory_info().rss
    peak = before

    def pieces() -> Iterator[bytes]:
        nonlocal peak
        for n in range(UPLOAD_BYTES // len(piece)):
            yield piece
            if n % 5 == 0:
                peak = max(peak, replica.memory_info().rss)

    answer = httpx.post(f"{deployed.url}/api/uploads?filename=big.bin", content=pieces(), headers=headers, timeout=120)
    assert answer.status_code == 201, answer.text
    expected = hashlib.sha256(piece * (UPLOAD_BYTES // len(piece))).hexdigest()
    assert answer.json()["sha256"] == expected
    assert max(peak, replica.memory_info().rss) - before <= 20_000_000


def _upload(url: str, headers: dict[str, str], piece: bytes, count: int, name: str) -> None:
    httpx.post(f"{url}/api/uploads?filename={name}", content=piece * count, headers=headers, timeout=60).raise_for_status()
