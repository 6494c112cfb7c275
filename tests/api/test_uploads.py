"""Uploads over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from qubix.intake.model import QuotaExceeded
from qubix.intake.service import IntakeService
from serve_app.api import uploads
from tests.api.conftest import World

LIMIT = 100_000
SMALL = {"rate_limits": False, "upload_size_max_bytes": LIMIT}


async def test_a_file_is_stored_by_its_hash_and_a_repeat_is_the_same_upload(world: World) -> None:
    anna = await world.person("anna")
    content = b"print('hello')\n" * 1000
    for method in ("POST", "PUT"):
        answer = await anna.http.request(method, "/api/uploads?filename=job.py", content=content)
        assert answer.status_code == 201, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
        assert answer.json()["size"] == len(content)
    listed = (await anna.http.get("/api/uploads")).json()["items"]
    assert [item["id"] for item in listed] == [answer.json()["id"]]
    assert world.resources.blobs.has(answer.json()["sha256"])


@pytest.mark.parametrize("name", ["evil.exe", "../x.py", "a/b.py", "", ".", "x" * 300 + ".py"])
async def test_a_name_that_is_not_taken_is_refused_with_the_reason(world: World, name: str) -> None:
    anna = await world.person("anna")
    answer = await anna.http.post("/api/uploads", params={"filename": name}, content=b"x")
    assert answer.status_code == 422
    assert answer.json()["next_step"]


@pytest.mark.parametrize("web_settings", [SMALL], indirect=True)
async def test_an_announced_length_past_the_limit_is_refused_before_the_body_is_read(served: World) -> None:
    anna = await served.person("anna")
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/uploads?filename=a.bin HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {anna.token}\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(4000), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert str(LIMIT).encode() in answer


@pytest.mark.parametrize("web_settings", [SMALL], indirect=True)
async def test_a_body_without_a_length_is_refused_as_soon_as_it_passes_the_limit(served: World) -> None:
    anna = await served.person("anna")
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 * LIMIT:
            sent += 1000
            yield b"x" * 1000
            await asyncio.sleep(0)

    answer = await anna.http.post("/api/uploads?filename=a.bin", content=endless())
    assert answer.status_code == 413, answer.text
    assert list((served.resources.settings.data_dir / "blobs" / "incoming").iterdir()) == []


async def test_a_body_cut_short_leaves_nothing(served: World) -> None:
    anna = await served.person("anna")
    host, port = served.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /api/uploads?filename=a.bin HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {anna.token}\r\nContent-Length: 50000\r\n\r\n"
    )
    writer.write(head.encode() + b"x" * 49_000)
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()
    await asyncio.sleep(0.3)
    assert (await anna.http.get("/api/uploads")).json()["items"] == []
    assert list((served.resources.settings.data_dir / "blobs" / "incoming").iterdir()) == []


async def test_a_body_that_stalls_is_answered_as_incomplete(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK_WAIT_S", 0.1)
    anna = await served.person("anna")

    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(1)
        yield b"x"

    answer = await anna.http.post("/api/uploads?filename=a.bin", content=stalling())
    assert (answer.status_code, answer.json()["code"]) == (422, "body_incomplete")


async def test_a_wrong_checksum_is_refused(world: World) -> None:
    anna = await world.person("anna")
    answer = await anna.http.post("/api/uploads?filename=a.bin", content=b"x", headers={"X-Content-SHA256": "0" * 64})
    assert answer.status_code == 422


@pytest.mark.parametrize("web_settings", [{**SMALL, "upload_quota_bytes": 150_000}], indirect=True)
async def test_the_quota_counts_all_files_and_a_forgotten_one_no_more(world: World) -> None:
    anna = await world.person("anna")
    first = await anna.http.post("/api/uploads?filename=a.bin", content=b"a" * 90_000)
    assert first.status_code == 201
    assert (await anna.http.post("/api/uploads?filename=b.bin", content=b"b" * 90_000)).json()["code"] == "quota_exceeded"
    assert (await anna.http.delete(f"/api/uploads/{first.json()['id']}")).status_code == 204
    assert (await anna.http.post("/api/uploads?filename=b.bin", content=b"b" * 90_000)).status_code == 201


async def test_a_file_that_is_refused_after_it_was_stored_leaves_no_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = await world.person("anna")

    async def refuse(service: IntakeService, *_: object) -> None:
        raise QuotaExceeded("other uploads were faster")

    monkeypatch.setattr(IntakeService, "record", refuse)
    answer = await anna.http.put("/api/uploads?filename=job.py", content=b"print()")
    assert (answer.status_code, answer.json()["code"]) == (413, "quota_exceeded")
    assert not world.resources.blobs.has(hashlib.sha256(b"print()").hexdigest())


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "..\\x.py",
        "x.py\x00.png",
        "\u202egpj.py",
        "a\r\nSet-Cookie: x=1.py",
        "x" * 10_000 + ".py",
        "%2e%2e%2fx.py/../y.py",
        "/etc/passwd",
        "\u0085.py",
        "\ud7ff\ufffe.py",
    ],
)
async def test_a_name_that_means_harm_is_refused_and_nothing_is_stored(world: World, name: str) -> None:
    anna = await world.person("anna")
    answer = await anna.http.put("/api/uploads", params={"filename": name}, content=b"x")
    assert answer.status_code == 422, answer.text
    assert not world.resources.blobs.has(hashlib.sha256(b"x").hexdigest())


@pytest.mark.parametrize("web_settings", [{**SMALL, "upload_quota_bytes": 250_000}], indirect=True)
async def test_uploads_at_once_stay_within_the_quota_and_leave_nothing_half(served: World) -> None:
    anna = await served.person("anna")
    contents = [bytes([number]) * 90_000 for number in range(12)]
    answers = await asyncio.gather(
        *(anna.http.put(f"/api/uploads?filename={number}.bin", content=content) for number, content in enumerate(contents))
    )
    kept = {answer.json()["sha256"] for answer in answers if answer.status_code == 201}
    assert len(kept) == 2, [answer.status_code for answer in answers]
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} == {"quota_exceeded"}
    folder = served.resources.settings.data_dir / "blobs"
    assert {path.name for path in folder.glob("??/*")} == kept
    assert list((folder / "incoming").iterdir()) == []


@pytest.mark.parametrize("announced", [b"10", b"-1", b"1e9", b"10, 20", b"99999999999999999999999", b"\xb2"])
async def test_a_length_that_lies_or_is_none_stores_no_more_than_it_says(served: World, announced: bytes) -> None:
    """What comes behind the announced length is another request, and no good one."""
    anna = await served.person("anna")
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/uploads?filename=a.bin HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {anna.token}\r\nContent-Length: "
    writer.write(head.encode() + announced + b"\r\n\r\n" + b"x" * 500)
    status = (await asyncio.wait_for(reader.read(4000), 10)).split(b" ")[1]
    writer.close()
    found = (await anna.http.get("/api/uploads")).json()["items"]
    assert (status, [item["size"] for item in found]) in ((b"201", [10]), (b"400", []), (b"413", []), (b"422", []))
    incoming = served.resources.settings.data_dir / "blobs" / "incoming"
    for _ in range(100):  # the server may see the end of the connection after we do
        if not list(incoming.glob("*")):
            break
        await asyncio.sleep(0.05)
    assert list(incoming.glob("*")) == []
