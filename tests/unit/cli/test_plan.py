"""What is asked to be locked, and how it was computed."""

from __future__ import annotations

from typing import Any

import pytest

from qubix.cli.output import Output
from qubix.cli.plan import agreed_ceiling, agreed_terms, plan_rows, show_plan
from qubix.kernel.errors import Invalid

ESTIMATE = {"duration_s": None}
OFFER: dict[str, Any] = {
    "id": "1", "model": "RTX_4090", "vram_bytes": 24 << 30, "gpus": 2, "gpus_free": 2, "price_per_hour": 1000, "region": "eu", "provider": "p",
    "reliability": None, "verified": True,
}  # fmt: skip


def quote(**members: Any) -> dict[str, Any]:
    return {"gpus": 1, "price_per_hour": 1000, "rate_max": 1000, "ceiling": 1000, "duration_max_s": 3600, **members}


def test_without_a_limit_the_ceiling_is_the_offers_rate_times_the_longest_run() -> None:
    assert dict(plan_rows(quote(), ESTIMATE, None)) == {
        "rate of the chosen offer": "1 000 QU per hour",
        "longest run": "1 h",
        "ceiling, locked until the end": "1 000 QU = rate 1 000 QU per hour × 1 h",
        "estimate": "no benchmark for this job yet",
    }


def test_a_higher_price_limit_is_told_apart_from_the_offers_price() -> None:
    rows = dict(plan_rows(quote(gpus=2, rate_max=5000, ceiling=10_000, duration_max_s=7200), ESTIMATE, None))
    assert rows["rate of the chosen offer"] == "2 000 QU per hour (2 GPUs × 1 000 QU)"
    assert rows["highest rate, for a retry on another node"] == "5 000 QU per hour (2 GPUs × 2 500 QU), by --price-max"
    assert rows["ceiling, locked until the end"] == "10 000 QU = highest rate 5 000 QU per hour × 2 h"


def test_a_budget_is_named_as_the_ceiling_with_what_it_pays_for() -> None:
    rows = dict(plan_rows(quote(ceiling=500), ESTIMATE, 500))
    assert rows["ceiling, locked until the end"] == "500 QU = the budget"
    assert rows["it pays, at the chosen rate, for"] == "30 min"


def test_a_plan_ticks_its_offer_and_shows_its_price_as_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "quote": quote(rate_max=9000, ceiling=9000),
        "offer": OFFER,
        "alternatives": [{**OFFER, "id": "2", "price_per_hour": 3000}],
        "estimate": ESTIMATE,
    }
    show_plan(Output(as_json=False), plan)
    said = capsys.readouterr().out
    ticked = next(text for text in said.splitlines() if "✔" in text)
    rate = next(text for text in said.splitlines() if text.startswith("rate of the chosen offer"))
    assert "1 000 QU" in ticked
    assert "1 000 QU" in rate


def test_a_plan_that_fits_nowhere_says_why_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    relaxation = {"field": "vram_bytes", "message": "Ask for 24 GB of VRAM instead of 48 GB."}
    show_plan(
        Output(as_json=False), {"quote": None, "offer": None, "unplaceable": {"message": "No offer is left.", "relaxation": relaxation}}
    )
    assert "nothing fits now: No offer is left. Ask for 24 GB of VRAM instead of 48 GB." in capsys.readouterr().out


WAITING = {
    "quote": None,
    "offer": None,
    "unplaceable": {"message": "No H100."},
    "waiting": {"rate_max": 3000, "ceiling": 6000, "duration_max_s": 7200},
}


def test_a_job_that_must_wait_shows_what_it_locks_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(Output(as_json=False), WAITING)
    assert "6 000 QU = highest rate 3 000 QU per hour × 2 h" in capsys.readouterr().out
    show_plan(Output(as_json=False), WAITING, budget=6000)
    assert "6 000 QU = the budget" in capsys.readouterr().out


def test_what_was_shown_is_what_a_waiting_job_is_sent_with() -> None:
    assert agreed_ceiling(WAITING) == 6000
    assert agreed_terms(WAITING, None) == {"budget": 6000, "duration_max_s": 7200}
    assert agreed_terms(WAITING, 6000) == {}
    assert agreed_terms({"quote": quote()}, None) == {}


def test_a_job_without_any_price_is_not_asked_about_but_refused() -> None:
    with pytest.raises(Invalid, match="not known what the job would lock") as refused:
        agreed_ceiling({"quote": None, "waiting": None})
    assert "--budget" in refused.value.next_step


def test_what_the_quote_holds_for_the_asker_is_shown_as_free(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"quote": quote(), "offer": {**OFFER, "gpus_free": 1}, "alternatives": [], "estimate": ESTIMATE}
    show_plan(Output(as_json=False), plan)
    assert "2/2" in next(text for text in capsys.readouterr().out.splitlines() if "✔" in text)
