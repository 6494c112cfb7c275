"""The history of a wallet with its jobs; and lists without items, which are a sentence and a next step, never an empty table."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qubix.cli import account, provider, wallet
from qubix.cli.client import Client
from qubix.cli.main import app
from qubix.cli.transactions import moved

JOB_ID = "0190aaaa-0000-7000-8000-000000000001"
NOTHING: dict[str, Any] = {"items": [], "next_cursor": None}


def said(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], *command: str) -> tuple[str, str]:
    """What a command says against a platform with these answers: stdout, stderr."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[request.url.path])

    for module in (account, provider, wallet):
        monkeypatch.setattr(module, "connect", lambda: Client("http://platform.example", transport=httpx.MockTransport(answer)))
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    return told.stdout, told.stderr


def entry(kind: str, amount: int, change: int, job_id: str | None, **more: Any) -> dict[str, Any]:
    row = {"id": "0190bbbb-0000-7000-8000-000000000001", "type": kind, "status": "completed", "asset": "QUBIC", "balance": 7}
    return {**row, "amount": amount, "change": change, "subject_id": None, "job_id": job_id, "created_at": "2026-01-01T00:00:00Z", **more}


def test_the_history_names_the_job_of_each_row_and_how_to_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [entry("refund", 1200, 1200, JOB_ID), entry("escrow_lock", 5000, -5000, JOB_ID), entry("deposit", 9000, 9000, None)]
    out, aside = said(monkeypatch, {"/api/wallets/transactions": {"items": items, "next_cursor": None}}, "wallet", "history")
    assert out.count(JOB_ID) == 2
    assert "+1 200 QU" in out
    assert "-5 000 QU" in out
    assert f"qubix show {JOB_ID}" in aside


def test_what_has_not_come_yet_is_said_to_be_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [entry("earning", 1200, 0, JOB_ID, status="pending", balance=None)]
    out, _ = said(monkeypatch, {"/api/wallets/transactions": {"items": items, "next_cursor": None}}, "wallet", "history")
    assert "earning (pending)" in out


def test_only_what_changed_the_balance_has_a_sign() -> None:
    assert [moved(1200, 1200), moved(1200, -1200), moved(1200, 0)] == ["+1 200 QU", "-1 200 QU", "1 200 QU"]


@pytest.mark.parametrize(
    ("command", "answers", "sentences", "hint"),
    [
        (("wallet", "history"), {"/api/wallets/transactions": NOTHING}, ["nothing has moved in this wallet yet"], "qubix wallet faucet"),
        (("keys",), {"/api/auth/keys": NOTHING}, ["this account has no API key"], "qubix keys create"),
        (
            ("provider", "status"),
            {"/api/providers/me": {"id": "p", "nodes": []}, "/api/earnings": {"items": [{"jobs": 0}]}},
            ["no machine of yours is in the market", "no job has earned anything yet"],
            "qubix provider join",
        ),
    ],
)
def test_a_list_without_items_is_a_sentence_with_a_next_step(
    command: tuple[str, ...], answers: dict[str, Any], sentences: list[str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, aside = said(monkeypatch, answers, *command)
    assert out.splitlines() == sentences
    assert hint in aside
