"""`qubix treasury` over a database that is not there, or only looked like: what it says, and what it says to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qubix import bootstrap
from qubix.cli import runfile, treasury
from qubix.cli.main import app
from qubix.kernel.errors import Invalid, NotFound
from qubix.treasury.oversight import explained

HOLD = "0190bbbb-0000-7000-8000-000000000001"
NOTHING: dict[str, Any] = {"network": "devnet", "chain": None, "halts": [], "waiting": [], "payments": [], "incoming": []}


def run(monkeypatch: pytest.MonkeyPatch, found: Any, *arguments: str) -> Any:
    """A treasury command whose database answers `found`."""
    monkeypatch.setattr(treasury, "work_as", lambda *_: found)
    return CliRunner().invoke(app, ["treasury", *arguments])


@pytest.fixture
def default_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runfile, "default_data_dir", lambda: tmp_path / "default")
    return tmp_path / "default"


def test_on_a_folder_of_ones_own_every_hint_names_it(tmp_path: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my platform"
    waiting = {"hold_id": HOLD, "amount": 5, "address": "A", "since": None, "reason": "needs an approval"}
    answer = run(monkeypatch, {**NOTHING, "waiting": [waiting]}, "status", "--data-dir", str(folder))
    place = f"--data-dir '{folder}'"
    hints = answer.stderr.strip().removeprefix("next:").strip().split("   ")
    assert hints == [f"qubix treasury {command} {place}" for command in (f"approve {HOLD}", "limits", "addresses")]


def test_on_the_default_folder_the_hints_are_bare(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data-dir" not in run(monkeypatch, NOTHING, "status").stderr


def test_a_withdrawal_that_is_over_leads_to_those_that_wait_there(
    tmp_path: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run(monkeypatch, {"state": "SETTLED"}, "approve", HOLD, "--data-dir", str(tmp_path))
    assert answer.exception.next_step == f"qubix treasury status --data-dir {tmp_path} lists those that wait"


def test_what_the_database_does_not_know_leads_to_what_it_does(tmp_path: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        async def close(self) -> None: ...

    async def look(_: object) -> None:
        raise NotFound("there is no payment x", next_step="qubix treasury status lists those that are not settled")

    monkeypatch.setattr(bootstrap, "open_resources", lambda *_, **__: Nothing())
    file = tmp_path / "role.url"
    file.touch(mode=0o600)
    with pytest.raises(NotFound) as refused:
        treasury.work_as(tmp_path, file, treasury.TREASURY, look)
    assert refused.value.next_step == f"qubix treasury status --data-dir {tmp_path} lists those that are not settled"


def test_where_no_platform_is_the_options_that_name_one_are_told(default_dir: Path) -> None:
    error = CliRunner().invoke(app, ["treasury", "status"]).exception
    assert isinstance(error, Invalid)
    assert str(default_dir) in error.message
    assert "--data-dir" in error.next_step
    assert "--url-file" in error.next_step


def test_a_ledger_without_a_chain_is_told_as_such(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "this ledger has no chain" in run(monkeypatch, {**NOTHING, "network": "none"}, "status").stdout
    assert "not looked at the chain yet" in run(monkeypatch, NOTHING, "status").stdout


def test_what_advanced_is_the_archive_not_the_epoch(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {"head": 9, "processed": 8, "cursor": 7, "epoch": 200, "advanced_at": "2026-11-01T00:00:00+00:00"}
    found = {**NOTHING, "chain": chain, "addresses": {}, "house": 1, "suspense": 0, "free_addresses": 3}
    assert "200; the archive advanced " in run(monkeypatch, found, "status").stdout


def test_a_ceiling_in_a_reason_is_written_as_every_amount() -> None:
    row = {"hold_id": HOLD, "reason": "needs an approval: above {} for a payment", "ceiling": 200_000}
    assert explained(row) == {"hold_id": HOLD, "reason": "needs an approval: above 200 000 QU for a payment"}
    assert explained({"reason": "goes next", "ceiling": 200_000}) == {"reason": "goes next"}


def test_a_halt_of_several_rules_is_told_a_line_each_and_after_a_restore_leads_to_recover(
    default_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"R1": {"booked": 5, "chain": 7}, "restored": {"tick": 12}}
    halt = {"subject": "*", "rule": "R1, restored", "figures": figures, "needs_person": True, "since": None}
    answer = run(monkeypatch, {**NOTHING, "halts": [halt]}, "status")
    assert "R1: booked 5, chain 7" in answer.stdout
    assert "restored: tick 12" in answer.stdout
    assert "qubix treasury recover" in answer.stderr
    assert "resume" not in answer.stderr
