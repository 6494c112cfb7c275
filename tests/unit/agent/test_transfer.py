"""Bytes beside the session: streamed, checked, and told apart by what may succeed later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from qubix.agent.transfer import AttemptOver, BytesDiffer, HttpTransfer, TransferFailed, TransferRefused

ATTEMPT, CONTENT = UUID(int=1), b"x" * 3_000_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def transfer(answer: Callable[[httpx.Request], httpx.Response]) -> HttpTransfer:
    made = HttpTransfer("http://platform/", httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    made.token = "secret"
    return made


async def test_a_blob_goes_up_whole_with_its_length_and_the_sessions_token(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []

    async def take(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return httpx.Response(201)

    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    made = HttpTransfer("http://platform", httpx.AsyncClient(transport=httpx.MockTransport(take)))
    made.token = "secret"
    await made.put_blob(ATTEMPT, 2, DIGEST, path)
    (request,) = seen
    assert request.url.path == f"/agent/v1/attempts/{ATTEMPT}/2/blobs/{DIGEST}"
    assert (request.headers["authorization"], request.headers["content-length"]) == ("Bearer secret", str(len(CONTENT)))
    assert request.content == CONTENT


async def test_an_input_arrives_readable_for_the_jobs_user(tmp_path: Path) -> None:
    target = tmp_path / "in" / "a"
    await transfer(lambda r: httpx.Response(200, content=CONTENT)).get_input(ATTEMPT, 1, "a b.bin", DIGEST, len(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644


async def test_other_bytes_than_promised_are_refused(tmp_path: Path) -> None:
    other = b"y" * len(CONTENT)
    with pytest.raises(BytesDiffer):
        await transfer(lambda r: httpx.Response(200, content=other)).get_checkpoint(ATTEMPT, 1, DIGEST, len(CONTENT), tmp_path / "c")


async def test_too_many_bytes_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    with pytest.raises(BytesDiffer):
        await transfer(lambda r: httpx.Response(200, content=CONTENT)).get_checkpoint(ATTEMPT, 1, DIGEST, 10, tmp_path / "c")
    assert (tmp_path / "c").stat().st_size <= 10


async def test_too_few_bytes_are_fetched_again(tmp_path: Path) -> None:
    with pytest.raises(TransferFailed):
        await transfer(lambda r: httpx.Response(200, content=b"x")).get_checkpoint(ATTEMPT, 1, DIGEST, len(CONTENT), tmp_path / "c")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, TransferFailed),
        (401, TransferFailed),
        (409, TransferFailed),
        (429, TransferFailed),
        (413, TransferRefused),
        (422, TransferRefused),
    ],
)
async def test_an_answer_says_whether_to_try_again(tmp_path: Path, status: int, error: type[Exception]) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"1")
    with pytest.raises(error):
        await transfer(lambda r: httpx.Response(status, text="why")).put_blob(ATTEMPT, 1, DIGEST, path)


async def test_bytes_that_stalled_on_their_way_are_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"1")
    with pytest.raises(TransferFailed):
        await transfer(lambda r: httpx.Response(422, json={"code": "body_incomplete"})).put_blob(ATTEMPT, 1, DIGEST, path)


async def test_the_answer_that_an_attempt_is_over_is_told_apart_from_other_conflicts(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"1")
    with pytest.raises(AttemptOver):
        await transfer(lambda r: httpx.Response(409, json={"code": "stale_attempt"})).put_blob(ATTEMPT, 1, DIGEST, path)
    with pytest.raises(TransferFailed):
        await transfer(lambda r: httpx.Response(409, json={"code": "conflict"})).put_blob(ATTEMPT, 1, DIGEST, path)


async def test_no_answer_at_all_is_tried_again(tmp_path: Path) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(TransferFailed):
        await transfer(broken).get_input(ATTEMPT, 1, "a", DIGEST, 1, tmp_path / "a")
