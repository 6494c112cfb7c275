"""The web layer as it runs in production: Ray Serve's replica behind the HAProxy ingress, pinned to the head."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest
from websockets.sync.client import connect

from qubix.fabric.head import Head, start_head
from qubix.jobs.blobs import BlobStore
from qubix.kernel.ports import free_port
from qubix.postgres.embedded import EmbeddedServer
from tests.conftest import clone, drop

pytestmark = pytest.mark.cluster
UPLOAD_BYTES = 200 * 1000 * 1000


class Deployed:
    """A running web layer."""

    def __init__(self, url: str, head: Head, data_dir: Path) -> None:
        self.url = url
        self.data_dir = data_dir
        self.head = head

    def replicas(self) -> list[psutil.Process]:
        """The processes of Serve's replicas."""
        found = []
        for member in self.head.process.members():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(member.pid)
                found += [process] if "ServeReplica" in " ".join(process.cmdline()) else []
        return found


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
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == f"ready http://127.0.0.1:{port}\n"
        yield Deployed(f"http://127.0.0.1:{port}", head, Path(settings["QUBIX_DATA_DIR"]))
    finally:
        head.stop()
        asyncio.run(drop(postgres, name))
        shutil.rmtree(folder, ignore_errors=True)


async def _found(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT found_ledger('none')")
    await connection.close()


def sign_up(url: str) -> dict[str, Any]:
    answer = httpx.post(
        f"{url}/api/auth/signup", json={"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"}, timeout=60
    )
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
        assert json.loads(socket.recv(timeout=60))["t"] == "subscribed"
        httpx.post(f"{deployed.url}/api/wallets/faucet", json={"amount": 5}, headers=headers).raise_for_status()
        event = json.loads(socket.recv(timeout=60))
        assert (event["event"], event["payload"]["change"]) == ("WALLET_UPDATE", 5)


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


def test_of_an_upload_whose_replica_is_killed_nothing_is_seen_and_the_next_one_is_taken(deployed: Deployed) -> None:
    person = sign_up(deployed.url)
    headers = {"Authorization": f"Bearer {person['access_token']}"}
    (replica,) = deployed.replicas()
    piece, incoming = secrets.token_bytes(1_000_000), deployed.data_dir / "blobs" / "incoming"
    before = files(deployed.data_dir / "blobs")

    def pieces() -> Iterator[bytes]:
        for n in range(20):
            if n == 10:
                until(lambda: any(path.stat().st_size for path in incoming.iterdir()), "some of it is on the disk")
                replica.kill()
            yield piece

    try:
        answer = httpx.post(f"{deployed.url}/api/uploads?filename=half.bin", content=pieces(), headers=headers, timeout=60)
        assert answer.status_code >= 500, answer.text
    except httpx.TransportError:
        pass  # the ingress may close the connection instead
    until(lambda: _listed(deployed.url, headers) == [], "another replica answers, and knows of no upload")
    assert len(list(incoming.iterdir())) == 1, "the half file, until the controller sweeps it"
    assert BlobStore(deployed.data_dir / "blobs").sweep_incoming(older_s=-1) == 1
    assert files(deployed.data_dir / "blobs") == before
    _upload(deployed.url, headers, piece, 2, "whole.bin")
    assert [item["size"] for item in _listed(deployed.url, headers) or []] == [2_000_000]


def files(folder: Path) -> set[Path]:
    """Every file below it."""
    return {path for path in folder.rglob("*") if path.is_file()}


def until(holds: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait for it. Raises: AssertionError."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _listed(url: str, headers: dict[str, str]) -> list[dict[str, Any]] | None:
    """The uploads that their owner sees; None while nobody answers."""
    try:
        answer = httpx.get(f"{url}/api/uploads", headers=headers, timeout=5)
    except httpx.TransportError:
        return None
    found: list[dict[str, Any]] | None = answer.json()["items"] if answer.status_code == 200 else None
    return found


def _upload(url: str, headers: dict[str, str], piece: bytes, count: int, name: str) -> None:
    httpx.post(f"{url}/api/uploads?filename={name}", content=piece * count, headers=headers, timeout=60).raise_for_status()
