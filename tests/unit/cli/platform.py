"""A platform whose answers are written down beforehand, for the commands that only look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest

from qubix.cli import follow, jobs, offers
from qubix.cli.client import Client

JOB_ID = "0190aaaa-0000-7000-8000-000000000001"


def attempt(number: int, node: str, state: str = "RUNNING", **members: Any) -> dict[str, Any]:
    """An attempt as the API shows it."""
    return {
        "number": number,
        "node_name": node,
        "state": state,
        "reason": None,
        "reason_detail": None,
        "resumed_from": None,
        "progress": 0.0,
    } | members


def job(state: str = "RUNNING", *attempts: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """A job as the API shows it, with its attempts."""
    receipt: dict[str, Any] = {"held": 100, "charged": 1, "refunded": None, "fee": 0, "escrow_state": "LOCKED", "attempts": []}
    known = {"id": JOB_ID, "name": "train", "kind": "mnist", "params": {}, "ceiling": 100, "created_at": None, "receipt": receipt}
    open_ends = {"progress": 0.0, "operation": "", "unplaceable": None, "reason": None, "reason_detail": None}
    return {**known, **open_ends, "state": state, "attempts": list(attempts), **members}


def line(position: int, number: int, text: str) -> dict[str, Any]:
    """A piece of a log."""
    return {"position": position, "attempt_number": number, "stream": "out", "text": text}


class Script:
    """Answers each look at the job with the next of `looks`, and then with what the log holds by that time."""

    def __init__(self, *looks: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]) -> None:
        self.looks = list(looks)
        self.lines: list[Mapping[str, Any]] = []
        self.job: Mapping[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            after = int(request.url.params["after"])
            return httpx.Response(200, json={"items": [item for item in self.lines if item["position"] > after]})
        if request.url.path.endswith("/artefacts"):
            return httpx.Response(200, json={"items": []})
        if self.looks:
            self.job, more = self.looks.pop(0)
            self.lines += more
        return httpx.Response(200, json=self.job)


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    """A client that reaches nothing but `answer`."""
    return Client("http://platform.example", transport=httpx.MockTransport(answer))


def stand_in(answer: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands reach `answer` alone, and look again without a pause."""
    monkeypatch.setattr(jobs, "connect", lambda: client_of(answer))
    monkeypatch.setattr(offers, "connect_as_anybody", lambda: client_of(answer))
    monkeypatch.setattr(follow, "_listen", lambda *_: None)
    monkeypatch.setattr(follow, "_wait_for_news", lambda socket: socket)
