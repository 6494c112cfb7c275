"""How a job's payment is asked for and followed."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from qubix.cli import follow, run
from qubix.cli.main import app
from qubix.cli.payment import counted, news_of
from qubix.cli.telling import Narrator
from tests.unit.cli.platform import JOB_ID, Script, attempt, client_of, job, stand_in

ADDRESS = "A" * 60
TX = "b" * 60


def payment(state: str = "waiting", **members: Any) -> dict[str, Any]:
    """A payment request as the API shows it: nothing has come yet."""
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=170.5)
    known = {
        "state": state,
        "address": ADDRESS,
        "amount": 600,
        "memo": f"qubix:job:{JOB_ID}",
        "payload_hex": "7175",
        "received": 0,
        "missing": 600,
        "confirmations": 0,
        "confirmations_needed": 3,
        "expected_wait_s": 26,
        "delayed": False,
        "tx_ids": [],
        "payments": [],
        "expires_at": expires.isoformat(),
    }
    return {**known, **members}


def on_its_way(confirmations: int, **members: Any) -> dict[str, Any]:
    shown = [{"explorer_url": f"http://explorer.example/tx/{TX}"}]
    return payment(**{"confirmations": confirmations, "missing": 0, "tx_ids": [TX], "payments": shown, "expected_wait_s": 4, **members})


PAID = on_its_way(3, state="paid", received=600, expected_wait_s=None)
STEPS = (
    (job("AWAITING_FUNDS", payment=payment()), []),
    (job("AWAITING_FUNDS", payment=payment(expected_wait_s=25)), []),
    *((job("AWAITING_FUNDS", payment=on_its_way(n)), []) for n in (0, 1, 2)),
    (job("PENDING", payment=PAID), []),
    (job("COMPLETED", attempt(1, "atlas", "SUCCEEDED"), payment=PAID), []),
)
QUOTE = {"id": "q", "gpus": 1, "price_per_hour": 3600, "rate_max": 3600, "ceiling": 600, "duration_max_s": 600}
OFFER = {"id": "o", "provider": "x", "model": "RTX_4090", "gpus_free": 1, "gpus": 1, "vram_bytes": 24 << 30, "price_per_hour": 3600}


def platform(script: Script, asked: dict[str, Any] | None) -> Any:
    """Answers a plan, makes a job that asks for `asked`, and then follows the script."""
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/quotes":
            plan = {"quote": None, "offer": None, "waiting": {"rate_max": 3600, "ceiling": 600, "duration_max_s": 600}, "unplaceable": {}}
            return httpx.Response(200, json=plan)
        if request.url.path == "/api/jobs/create":
            sent.append(json.loads(request.content))
            state = "AWAITING_FUNDS" if asked else "PENDING"
            return httpx.Response(201, json={"job": {"id": JOB_ID, "state": state}, "payment": asked})
        return script(request)

    answer.sent = sent  # type: ignore[attr-defined]
    return answer


def invoke(answer: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    stand_in(answer, monkeypatch)
    monkeypatch.setattr(run, "connect", lambda: client_of(answer))
    return CliRunner().invoke(app, ["run", "mnist", "--pay", "chain", "-y", *arguments])


def test_a_run_paid_on_the_chain_shows_what_to_pay_and_follows_it_from_0_to_3(monkeypatch: pytest.MonkeyPatch) -> None:
    server = platform(Script(*STEPS), payment())
    answer = invoke(server, monkeypatch)
    assert answer.exit_code == 0, answer.output
    assert server.sent[0]["pay"] == "chain"
    for shown in (ADDRESS, "600 QU", f"qubix:job:{JOB_ID}"):
        assert shown in answer.stdout
    assert re.search(r"2 min \d+ s from now", answer.stdout), "it had 2 min 50 s when it was asked for"
    told = [text.removeprefix("──").strip() for text in answer.stderr.splitlines() if text.startswith("──")]
    assert [text for text in told if "payment" in text] == [
        "waiting for the payment, 600 QU missing: 0/3, about 26 s after it is sent",
        "payment 0/3, about 4 s more",
        "payment 1/3, about 4 s more",
        "payment 2/3, about 4 s more",
        "payment 3/3: the job is funded",
    ]


def test_with_json_the_request_is_a_line_on_stderr_and_stdout_the_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = invoke(platform(Script(*STEPS), payment()), monkeypatch, "--json")
    assert json.loads(answer.stdout)["state"] == "COMPLETED"
    assert json.loads(answer.stderr)["payment"]["address"] == ADDRESS


def test_detached_it_returns_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = invoke(platform(Script(), payment()), monkeypatch, "--json", "--detach")
    assert (answer.exit_code, json.loads(answer.stdout)["payment"]["missing"], answer.stderr) == (0, 600, "")


def test_left_by_ctrl_c_it_says_that_the_job_waits_and_exits_as_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    server = platform(Script(STEPS[0], STEPS[0]), payment())

    def leave(socket: Any) -> None:
        raise KeyboardInterrupt

    stand_in(server, monkeypatch)
    monkeypatch.setattr(run, "connect", lambda: client_of(server))
    monkeypatch.setattr(follow, "_wait_for_news", leave)
    answer = CliRunner().invoke(app, ["run", "mnist", "--pay", "chain", "-y"])
    assert answer.exit_code == 101
    assert re.search(rf"still waits for its payment.*qubix cancel {JOB_ID}", answer.stderr)


def test_what_the_wallet_holds_already_is_said_to_be_paid_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = invoke(platform(Script((job("COMPLETED"), [])), None), monkeypatch)
    assert "funded from the wallet" in answer.stdout


def test_a_job_whose_payment_did_not_come_in_time_says_where_late_money_is(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "the payment was not in the wallet before the quote ran out; what comes stays in the wallet"
    over = job("CANCELLED", reason="expired", reason_detail=why, payment=payment("over", expected_wait_s=None))
    answer = invoke(platform(Script((over, [])), payment()), monkeypatch)
    assert answer.exit_code == 103
    assert why in answer.stdout


def test_show_has_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script(STEPS[2]), monkeypatch)
    shown = CliRunner().invoke(app, ["show", JOB_ID])
    assert ADDRESS in shown.stdout
    assert f"http://explorer.example/tx/{TX}" in shown.stdout
    assert shown.exit_code == 101


def test_of_a_part_payment_the_missing_rest_is_told() -> None:
    part = on_its_way(0, received=400, missing=200, expected_wait_s=26)
    assert news_of(part) == "payment 0/3, about 26 s more: 400 QU received, 200 QU missing"


def test_a_delay_is_told_without_a_promise() -> None:
    assert "delayed" in counted(on_its_way(1, delayed=True, expected_wait_s=None))


def test_a_job_paid_long_ago_is_not_told_of_again() -> None:
    said: list[str] = []
    narrator = Narrator(said.append)
    narrator.look(job("RUNNING", payment=PAID))
    narrator.flush()
    assert said == []
