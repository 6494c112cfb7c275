"""The API client: what it repeats, what it never repeats, how it reports a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import stamina

from qubix.cli.client import ApiError, Client
from qubix.cli.output import ExitCode


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://platform.example", "qk_secret", transport=httpx.MockTransport(answer))


def test_the_key_travels_as_a_bearer_token() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={})

    client_of(answer).get("/api/jobs")
    assert seen == ["Bearer qk_secret"]


def test_a_post_repeats_under_one_idempotency_key() -> None:
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(503 if len(keys) < 3 else 200, json={"done": True})

    assert client_of(answer).post("/api/jobs/create", {"kind": "mnist"}) == {"done": True}
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_posts_have_two_idempotency_keys() -> None:
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(200, json={})

    client = client_of(answer)
    client.post("/api/wallets/faucet", {"amount": 1})
    client.post("/api/wallets/faucet", {"amount": 1})
    assert len(set(keys)) == 2


def test_a_lost_answer_is_asked_for_again() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) == 1:
            raise httpx.ReadError("gone", request=request)
        return httpx.Response(200, json={"ok": 1})

    assert client_of(answer).get("/api/jobs") == {"ok": 1}


def test_a_platform_that_stays_away_is_reported_as_its_own_answer() -> None:
    problem = {"code": "unavailable", "detail": "the database is away", "next_step": "try again soon"}
    with pytest.raises(ApiError) as refused:
        client_of(lambda _: httpx.Response(503, json=problem)).get("/api/jobs")
    assert refused.value.problem == "unavailable"


def test_a_refusal_is_not_repeated_and_carries_the_problem() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(
            402, json={"title": "t", "code": "insufficient_funds", "detail": "short", "next_step": "faucet", "missing": 5}
        )

    with pytest.raises(ApiError) as refused:
        client_of(answer).post("/api/jobs/create", {})
    assert len(calls) == 1
    assert (refused.value.problem, refused.value.message, refused.value.next_step) == ("insufficient_funds", "short", "faucet")
    assert refused.value.extra == {"missing": 5}
    assert refused.value.exit_code is ExitCode.ERROR


def test_what_is_not_there_has_an_exit_code_of_its_own() -> None:
    with pytest.raises(ApiError) as refused:
        client_of(lambda _: httpx.Response(404, json={"code": "not_found", "detail": "no"})).get("/api/jobs/x")
    assert refused.value.exit_code is ExitCode.NOT_FOUND


def test_an_answer_that_is_no_problem_document_is_still_told() -> None:
    with pytest.raises(ApiError) as refused:
        client_of(lambda _: httpx.Response(500, text="oops")).get("/api/jobs")
    assert "500" in refused.value.message
    assert "oops" in refused.value.message


def test_pages_are_read_until_the_wanted_number() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        count = int(request.url.params["limit"])
        return httpx.Response(200, json={"items": list(range(start, start + count)), "next_cursor": str(start + count)})

    assert client_of(answer).pages("/api/jobs", items_max=150) == list(range(150))


def test_an_upload_streams_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_bytes(b"x" * 3_000_000)

    def answer(request: httpx.Request) -> httpx.Response:
        body = request.read()
        return httpx.Response(
            200, json={"name": request.url.params["filename"], "size": len(body), "sent": request.headers["Content-Length"]}
        )

    assert client_of(answer).upload(path) == {"name": "train.py", "size": 3_000_000, "sent": "3000000"}


def test_a_body_is_sent_as_json() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=json.loads(request.content))

    assert client_of(answer).patch("/api/nodes/1", {"paused": True}) == {"paused": True}
