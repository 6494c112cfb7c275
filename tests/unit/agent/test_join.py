"""Joining: what is sent, what is kept, and what a refusal says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from qubix.agent.devices import BadDeclaration
from qubix.agent.home import Home
from qubix.agent.join import JoinRefused, NoDevices, join
from qubix.kernel.errors import Unavailable
from qubix.sandbox.spec import Program
from tests.fakes.runner import fake_program


class Works:
    def probe(self) -> dict[str, str]:
        return {"ok": "yes", "limits": "cgroup2"}

    def clean(self) -> None: ...

    def bury(self, attempt: UUID, gone: bool) -> None: ...

    def locate(self, kind: str) -> Program:
        return fake_program(kind)


def joined(home: Home, answer: Any, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "worker_id": "w1",
        "name": "n",
        "region": "eu-central",
        "price_per_hour": 100,
        "declared_gpus": ["RTX_4090:24GB"],
    }
    return join(home, "http://platform", "qj_token", containment=Works(), transport=httpx.MockTransport(answer), **(arguments | changes))


def test_a_join_sends_the_public_key_and_the_facts_and_keeps_where_it_belongs(tmp_path: Path) -> None:
    home, ids, sent = Home(tmp_path), {"provider_id": str(uuid4()), "node_id": str(uuid4())}, []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json=ids | {"created": True})

    assert str(joined(home, answer).node_id) == ids["node_id"]
    (body,) = sent
    assert (body["public_key"], body["worker_id"], body["token"]) == (home.public_key_hex(), "w1", "qj_token")
    assert body["facts"]["devices"][0] | {"uuid": ""} == {
        "uuid": "",
        "model": "RTX_4090",
        "vram_bytes": 24 << 30,
        "detected_by": "declared",
    }
    assert body["facts"]["sandbox"]["ok"] == "yes"
    kept = home.read_config()
    assert (str(kept.node_id), kept.worker_id, kept.declared_gpus, kept.server_url) == (
        ids["node_id"],
        "w1",
        ("RTX_4090:24GB",),
        "http://platform",
    )


def test_a_refusal_is_told_in_the_platforms_words_and_nothing_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    problem = {"detail": "Ray here 2.59.0, server 2.60.0", "next_step": "Install the server's release.", "code": "version_mismatch"}
    with pytest.raises(JoinRefused) as caught:
        joined(home, lambda r: httpx.Response(409, json=problem))
    assert (caught.value.message, caught.value.next_step) == (problem["detail"], problem["next_step"])
    assert not (tmp_path / "agent.json").exists()


def test_a_platform_that_does_not_answer_is_said_to_be_away(tmp_path: Path) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable):
        joined(Home(tmp_path), broken)


def test_a_machine_without_a_gpu_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoDevices) as caught:
        joined(Home(tmp_path), lambda r: httpx.Response(200), declared_gpus=[])
    assert "--declare-gpu" in caught.value.next_step


def test_a_malformed_declaration_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(BadDeclaration):
        joined(Home(tmp_path), lambda r: httpx.Response(500), declared_gpus=["RTX"])
