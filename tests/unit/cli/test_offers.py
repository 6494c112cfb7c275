"""What `qubix offers` says of itself and of what is not free."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qubix.cli.main import app
from tests.unit.cli.platform import stand_in

OFFER: dict[str, Any] = {
    "id": "1", "model": "RTX_4090", "vram_bytes": 24_564 << 20, "gpus": 1, "gpus_free": 1, "price_per_hour": 5, "region": "eu", "provider": "p",
    "reliability": None, "verified": True,
}  # fmt: skip


def test_the_help_shows_the_list_of_regions_in_its_example() -> None:
    said = " ".join(CliRunner().invoke(app, ["offers", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "region in [eu,us]'." in said


def test_all_offers_are_listed_with_why_one_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    stati = {
        "available": "free",
        "busy": "taken",
        "paused": "paused",
        "draining": "draining",
        "offline": "offline",
        "no_sandbox": "no sandbox",
    }
    items = [{**OFFER, "status": status} for status in stati]
    stand_in(lambda _: httpx.Response(200, json={"items": items, "next_cursor": None}), monkeypatch)
    lines = CliRunner().invoke(app, ["offers", "--all"]).stdout.splitlines()
    assert lines[1].endswith("status")
    assert all(line.endswith(word) for line, word in zip(lines[2:], stati.values(), strict=True))


def test_offers_that_are_free_need_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(lambda _: httpx.Response(200, json={"items": [{**OFFER, "status": "available"}], "next_cursor": None}), monkeypatch)
    assert "status" not in CliRunner().invoke(app, ["offers"]).stdout
