"""What single commands show of money: whose unit it is, what became of it, which price holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qubix.cli.escrow import escrow_table
from qubix.cli.output import Output, amount
from qubix.cli.processes import Running
from qubix.cli.provider import _told, earnings_table
from qubix.cli.runfile import RunFile

LINE = {"line": "a", "gross": 10, "state": "FROZEN", "to_payee": None}
ESCROW: dict[str, Any] = {
    "state": "SPLIT",
    "funded": 100,
    "paid": 10,
    "refunded": 90,
    "disputed_at": "2026-01-01T00:00:00Z",
    "lines": [LINE],
}


def text(table: Any) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    console.file.close()
    return console.export_text()


def test_each_asset_is_counted_in_its_own_unit() -> None:
    assert (amount(1234), amount(1234, "USDC"), amount(None, "USDC")) == ("1 234 QU", "1 234 USDC", "-")
    shown = text(earnings_table([{"asset": "USDC", "pending": 1, "total": 2, "today": 3, "month": 4, "jobs": 5}]))
    assert "QU " not in shown
    assert "4 USDC" in shown


def test_a_disputed_escrow_says_so_and_what_was_ruled() -> None:
    assert "an arbiter decides" in text(escrow_table(ESCROW))
    assert "an arbiter decides" in text(escrow_table(ESCROW | {"state": "DISPUTED", "lines": []}))  # while the job still runs
    ruled = text(escrow_table(ESCROW | {"lines": [LINE | {"state": "RETURNED", "to_payee": 0}]}))
    assert "decided" in ruled
    assert "0 QU of it to the provider" in ruled
    assert "disputed" not in text(escrow_table(ESCROW | {"disputed_at": None}))


@pytest.mark.parametrize(("asked", "kept"), [(2000, False), (3000, True)])
def test_who_joins_again_is_told_the_price_that_holds(asked: int, kept: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFile(supervisor=Running(1, 2), facts={"price_per_hour": "2000"})
    _told(Output(False), run, Path("/home/node"), asked)
    said = capsys.readouterr().out
    assert "2 000 QU" in said
    assert (f"qubix provider price {asked}" in said) == kept
