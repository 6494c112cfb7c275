"""`qubix wallet` where money comes from a chain: what is told while it is on its way, and how the commands end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from qubix.cli import transactions, wallet
from qubix.cli.client import Client
from qubix.cli.main import app
from qubix.cli.transactions import moment

TX = "a" * 60
URL = f"https://explorer.example/network/tx/{TX}"
PAYEE = "CELKIKEVOADOGDBMXKNPVKOFVQZBDVQNCNYQXBHOEEFOCIGJAVJBRMBELZGC"
ID = "0190bbbb-0000-7000-8000-000000000001"


def row(kind: str = "deposit", status: str = "pending", confirmations: int = 0, **more: Any) -> dict[str, Any]:
    """A transaction as the API shows it."""
    made = {"id": ID, "type": kind, "status": status, "asset": "QUBIC", "amount": 70, "change": 0, "balance": None, "subject_id": ID}
    chain = {"tx_id": TX, "tick": 1000, "explorer_url": URL, "confirmations": confirmations, "address": "A" * 60, "counterparty": None}
    shown = {"chain_state": "seen", "detail": "", "expected_wait_s": 6, "delayed": False, "cancellable": False, "job_id": None}
    return {**made, **chain, **shown, "created_at": "2026-01-01T00:00:00Z", **more}


DONE = row(status="completed", confirmations=3, change=70, balance=70, chain_state="done", expected_wait_s=None)


def run(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], Any], *command: str) -> Result:
    """A command against a platform with these answers, which looks again without a pause."""

    def respond(request: httpx.Request) -> httpx.Response:
        found = answer(request)
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    monkeypatch.setattr(wallet, "connect", lambda: Client("http://platform.example", transport=httpx.MockTransport(respond)))
    monkeypatch.setattr(transactions, "LOOK_INTERVAL_S", 0)
    return CliRunner().invoke(app, command)


class Looks:
    """Each look gets the next answer, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


NOT_FOUND = httpx.Response(404, json={"code": "not_found", "detail": "no such transaction"})
PAYMENT = {"id": ID, "tx_id": TX, "tick": 1000, "address": "A" * 60, "explorer_url": URL, "expected_wait_s": 9}


def test_the_faucet_on_the_devnet_is_followed_until_the_money_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(NOT_FOUND, NOT_FOUND, row(), row(confirmations=1), row(confirmations=1), row(confirmations=2), DONE)
    told = run(monkeypatch, lambda r: {"wallets": [], "payment": PAYMENT} if r.method == "POST" else looks(), "wallet", "faucet", "70")
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert [line.partition(": ")[2][:3] for line in lines if line.startswith("deposit of")] == ["0/3", "1/3", "2/3", "don"]
    assert lines.count(URL) == 2, "once where it is sent, once where it is seen"


def test_a_faucets_payment_that_nobody_sees_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "UNSEEN_S", 0)
    told = run(monkeypatch, lambda r: {"wallets": [], "payment": PAYMENT} if r.method == "POST" else NOT_FOUND, "wallet", "faucet", "70")
    assert told.exit_code == 101
    assert "has not shown it yet" in told.stderr


def test_without_following_the_faucet_says_what_it_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(monkeypatch, lambda r: {"wallets": [], "payment": PAYMENT}, "wallet", "faucet", "70", "--no-follow", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["payment"]["tx_id"] == TX


WAY_IN = {
    "network": "devnet",
    "asset": "QUBIC",
    "address": "A" * 60,
    "explorer_url": "https://explorer.example/network/address/" + "A" * 60,
    "memo_required": False,
    "confirmations": 3,
    "expected_wait_s": 26,
    "delayed": False,
    "notes": ["do not send from a contract"],
    "incoming": [],
}


def page(*incoming: dict[str, Any], items: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"incoming": list(incoming), "items": list(items), "next_cursor": None}


def test_what_comes_to_the_address_is_told_until_it_is_in_the_wallet(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**DONE, "id": "0190bbbb-0000-7000-8000-000000000000", "tx_id": "b" * 60}
    looks = Looks(page(items=(old,)), page(row(), items=(old,)), page(row(confirmations=2), items=(old,)), page(items=(DONE, old)))
    told = run(monkeypatch, lambda r: WAY_IN if r.method == "POST" else looks(), "wallet", "deposit")
    assert told.exit_code == 0, told.output
    assert "0/3" in told.stdout
    assert "2/3" in told.stdout
    assert "done, 3/3" in told.stdout
    assert "b" * 60 not in told.stdout, "what had come before is no news"


def test_a_doubtful_deposit_ends_the_waiting_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = row(status="unknown", chain_state="doubtful", detail="the event log does not show it", expected_wait_s=None)
    looks = Looks(page(), page(doubtful))
    told = run(monkeypatch, lambda r: WAY_IN if r.method == "POST" else looks(), "wallet", "deposit")
    assert told.exit_code == 101
    assert "the event log does not show it" in told.stdout


QUEUED = row("withdrawal", tx_id=None, tick=None, explorer_url=None, chain_state="queued", cancellable=True)
SIGNED = row("withdrawal", chain_state="signed")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (row("withdrawal", "completed", 3, chain_state="done"), 0),
        (row("withdrawal", "failed", chain_state="cancelled", detail="given back"), 103),
        (row("withdrawal", "unknown", chain_state="unknown", detail="the archives disagree"), 101),
    ],
)
def test_a_withdrawal_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch, end: dict[str, Any], code: int) -> None:
    looks = Looks(QUEUED, SIGNED, end)
    told = run(monkeypatch, lambda r: QUEUED if r.method == "POST" else looks(), "wallet", "withdraw", "70", PAYEE, "-y")
    assert told.exit_code == code, told.output
    assert "signed for tick 1000" in told.stdout


@pytest.mark.parametrize("address", ["NOPE", "A" * 56 + "FXIB", "EAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAVWRF"])
def test_an_address_where_money_is_lost_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    asked: list[httpx.Request] = []
    told = run(monkeypatch, asked.append, "wallet", "withdraw", "70", address, "-y")
    assert told.exception is not None
    assert asked == []


def test_a_withdrawal_needs_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []
    told = run(monkeypatch, asked.append, "wallet", "withdraw", "70", PAYEE, "--json")
    assert told.exception is not None
    assert "nobody is asked here" in str(told.exception)
    assert asked == []


def test_the_history_shows_what_comes_first_with_its_count_and_links(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.URL] = []

    def answer(request: httpx.Request) -> Any:
        seen.append(request.url)
        if "cursor" in request.url.params:
            return {"items": [DONE], "next_cursor": None, "incoming": []}
        return {"incoming": [row(confirmations=1)], "items": [QUEUED], "next_cursor": "c"}

    told = run(
        monkeypatch, answer, "wallet", "history", "--type", "deposit", "--type", "withdrawal", "--status", "pending", "--since", "7d"
    )
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert "deposit (pending, 1/3)" in lines[2]
    assert lines[2].endswith(URL), "on a pipe the whole link, on one line"
    assert "withdrawal (pending)" in lines[3]
    assert seen[0].params.get_list("type") == ["deposit", "withdrawal"]
    assert seen[1].params["cursor"] == "c"
    assert seen[1].params["since"].startswith("20")


def test_the_history_shows_where_withdrawals_go_and_which_can_still_be_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ID[:-1] + "2"
    queued, signed = {**QUEUED, "address": PAYEE}, {**SIGNED, "address": PAYEE, "id": other}
    told = run(monkeypatch, lambda _: page(queued, signed), "wallet", "history")
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert f"withdrawal (pending) to {PAYEE[:10]}…" in lines[2]
    assert ID in lines[2]
    assert other not in told.stdout, "what is signed cannot be called off"
    assert f"qubix wallet cancel {ID}" in told.stderr


def test_a_withdrawal_that_its_owner_called_off_is_not_said_to_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {**QUEUED, "status": "failed", "chain_state": "cancelled", "cancellable": False, "detail": "called off"}
    told = run(monkeypatch, lambda _: page(items=(ended,)), "wallet", "history")
    assert "withdrawal (called off)" in told.stdout
    assert "failed" not in told.stdout


@pytest.mark.parametrize("text", ["yesterday", "-1", "2026-13-01"])
def test_a_time_that_is_none_is_a_wrong_option(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text)


def test_times_are_dates_or_ages() -> None:
    assert moment(None) is None
    assert str(moment("2026-11-01T00:00:00+00:00")).startswith("2026-11-01T00:00:00")
    assert str(moment("2h")).endswith("+00:00")


def test_analytics_list_busy_days_and_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    none = dict.fromkeys(("deposited", "withdrawn", "locked", "spent", "refunded", "earned", "fees", "transactions"), 0)
    busy = {**none, "deposited": 1000, "transactions": 1}
    found = {"asset": "QUBIC", "days": [{"date": "2026-11-01", **none}, {"date": "2026-11-02", **busy}], "total": busy}
    told = run(monkeypatch, lambda _: found, "wallet", "analytics", "--days", "2")
    assert told.exit_code == 0, told.output
    assert "2026-11-01" not in told.stdout
    assert told.stdout.count("1 000 QU") == 2


@pytest.mark.parametrize("state", ["approval", "halted"])
def test_what_waits_for_a_person_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    waits = row("withdrawal", chain_state=state, tx_id=None, tick=None, explorer_url=None, detail="the operator looks first", delayed=True)
    answer = run(monkeypatch, lambda request: waits, "wallet", "withdraw", "70", PAYEE, "-y")
    assert answer.exit_code == 101
    assert "the operator looks first" in answer.stdout
