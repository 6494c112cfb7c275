"""A list without items is a sentence and a next step, never an empty table; a query that cannot be read is shown with its mistake."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import httpx
import pytest
from typer.testing import CliRunner, Result

from qubix.cli import main
from qubix.cli.main import app
from qubix.cli.offers import underlined
from qubix.kernel.errors import QubixError
from qubix.market import filters
from tests.unit.cli.platform import JOB_ID, Script, job, stand_in

OFFER = {
    "id": "1", "model": "RTX_4090", "vram_bytes": 24_564 << 20, "gpus": 1, "gpus_free": 0, "price_per_hour": 5, "region": "eu", "provider": "p",
    "reliability": None, "verified": True,
}  # fmt: skip


def market(free: list[object], everything: list[object]) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        found = everything if request.url.params.get("available") == "any" else free
        return httpx.Response(200, json={"items": found, "next_cursor": None})

    return answer


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def one_sentence(answer: Result) -> str:
    assert answer.exit_code == 0, answer.output
    assert len(answer.stdout.splitlines()) == 1, answer.stdout
    return answer.stdout.strip()


@pytest.mark.parametrize("more", [(), ("--group-by", "gpu")])
def test_offers_that_are_all_taken_are_counted_and_the_way_to_see_them_named(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(market([], [OFFER, OFFER]), monkeypatch)
    answer = run("offers", "region in [eu,us]", *more)
    assert one_sentence(answer) == "no offer that matches is free now: 2 taken, paused or offline"
    assert "next:  qubix offers 'region in [eu,us]' --all" in answer.stderr


def test_a_query_that_no_offer_matches_leads_to_all_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(market([], []), monkeypatch)
    answer = run("offers", "vram>=99GB")
    assert one_sentence(answer) == "no offer matches vram>=99GB"
    assert answer.stderr.strip() == "next:  qubix offers --all"


def test_an_empty_market_asks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(market([], []), monkeypatch)
    answer = run("offers")
    assert one_sentence(answer) == "nobody offers a GPU yet"
    assert answer.stderr.strip() == "next:  qubix provider join"


def test_no_job_leads_to_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(market([], []), monkeypatch)
    answer = run("jobs")
    assert one_sentence(answer) == "this account has no job yet"
    assert "qubix run mnist" in answer.stderr


@pytest.mark.parametrize(
    ("state", "sentence", "then"),
    [("RUNNING", "they appear once the job has stored them", "qubix logs -f"), ("FAILED", "it ended without storing one", "qubix show")],
)
def test_no_artefact_says_whether_one_may_come(state: str, sentence: str, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job(state), [])), monkeypatch)
    answer = run("artefacts", JOB_ID)
    assert one_sentence(answer) == f"job {JOB_ID} is {state} and has no artefact: {sentence}"
    assert then in answer.stderr


def test_no_log_line_is_said_beside_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job("PENDING"), [])), monkeypatch)
    answer = run("logs", JOB_ID)
    assert answer.stdout == ""
    assert "there is no log line: the job is PENDING" in answer.stderr


@pytest.mark.parametrize("command", [("offers",), ("jobs",), ("artefacts", JOB_ID)])
def test_with_json_nothing_found_is_an_empty_list(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job("RUNNING"), [])) if command[0] == "artefacts" else market([], []), monkeypatch)
    answer = run(*command, "--json")
    assert json.loads(answer.stdout)["items"] == []
    assert answer.stderr == ""


def refusing(request: httpx.Request) -> httpx.Response:
    """What the search says to a query, by the very parser."""
    try:
        filters.parse(dict(request.url.params))
    except QubixError as error:
        problem = {"code": error.code, "detail": error.message, "next_step": error.next_step, **error.extra}
        return httpx.Response(422, json=problem)
    return httpx.Response(200, json={"items": [OFFER], "next_cursor": None})


def test_a_query_with_a_bad_unit_is_shown_with_carets_under_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(refusing, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["qubix", "offers", "gpu=RTX_4090 vram>=24XB fast"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    query, carets, error, advice = capsys.readouterr().err.splitlines()
    assert query == "  gpu=RTX_4090 vram>=24XB fast"
    assert carets == "                     ^^^^"
    assert query[carets.index("^") : carets.rindex("^") + 1] == "24XB"
    assert "vram takes a size such as 24GB" in error
    assert "GB, TB, KiB" in advice


def test_carets_stand_right_under_wide_and_hostile_characters() -> None:
    assert underlined("显卡 vram>=1XB", 9, 3) == "  显卡 vram>=1XB\n" + " " * 13 + "^^^"
    assert "\x1b" not in underlined("\x1b]0;x\x07 vram>=1XB", 13, 3)


def test_a_found_card_is_shown_as_it_is_sold(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(refusing, monkeypatch)
    assert "24 GB" in run("offers", "vram>=24GB").stdout
