"""A job that has ended: its end is told, and nothing is proposed that it cannot have."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from qubix.cli.main import app
from tests.unit.cli.platform import JOB_ID, Script, attempt, job, stand_in


def test_following_the_logs_of_a_job_that_is_cancelled_says_so_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = job("CANCELLED", attempt(1, "atlas", "CANCELLED"), reason="cancelled", reason_detail="cancelled by its owner")
    stand_in(Script((job("RUNNING", attempt(1, "atlas")), []), (ended, [])), monkeypatch)
    told = CliRunner().invoke(app, ["logs", "-f", JOB_ID])
    assert told.exit_code == 103
    assert told.stdout == ""
    assert "the job is CANCELLED: cancelled by its owner" in told.stderr


@pytest.mark.parametrize("command", [("show", JOB_ID), ("logs", "-f", JOB_ID)])
def test_a_job_that_never_ran_has_no_results_and_nothing_to_dispute(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job("CANCELLED"), [])), monkeypatch)
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 103
    assert "artefacts" not in told.stderr
    assert "dispute" not in told.stderr
    assert "qubix wallet" in told.stderr


def test_a_job_that_ran_can_be_disputed(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job("COMPLETED", attempt(1, "atlas", "SUCCEEDED")), [])), monkeypatch)
    assert f"qubix escrow dispute {JOB_ID}" in CliRunner().invoke(app, ["show", JOB_ID]).stderr
