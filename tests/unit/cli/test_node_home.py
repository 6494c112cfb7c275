"""A provider's node has a home with a run file, like a platform's data folder; the commands tell the two apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qubix.cli import runfile, up
from qubix.cli.main import app
from qubix.cli.output import ExitCode
from qubix.cli.processes import seen
from qubix.kernel.errors import Conflict


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a node that runs; its supervisor is this process."""
    folder = tmp_path / "node"
    folder.mkdir()
    facts = {"worker_id": "w", "node_id": "n", "provider_id": "p", "price_per_hour": "1500"}
    run = runfile.RunFile(supervisor=seen(os.getpid()), state="ready", facts=facts, urls={"application": "http://a"})
    runfile.write(folder, run)
    return folder


def test_joining_again_while_the_node_runs_shows_it_and_starts_nothing(home: Path) -> None:
    answer = CliRunner().invoke(app, ["provider", "join", "--home", str(home), "--price", "9000"])
    assert answer.exit_code == 0, answer.output
    assert "runs already" in answer.stdout
    assert "1 500 QU" not in answer.stdout, "that was its price when it started"
    assert "qubix provider price 9000" in answer.stderr, "it keeps the one that it has"


def test_its_status_is_not_shown_as_a_platforms(home: Path) -> None:
    answer = CliRunner().invoke(app, ["status", "--data-dir", str(home)])
    assert answer.exit_code == 0
    assert "it is no platform" in answer.stdout
    assert "qubix provider status" in answer.stderr
    assert f"qubix provider leave --home {home}" in "".join(answer.stderr.split("\n")), "another home than this user's default"
    assert "qubix up" not in answer.stderr


def test_a_node_that_still_starts_is_not_ready_by_its_exit_code(home: Path) -> None:
    run = runfile.read(home)
    assert run is not None
    run.state = "starting"
    runfile.write(home, run)
    answer = CliRunner().invoke(app, ["status", "--data-dir", str(home)])
    assert answer.exit_code == ExitCode.NOT_FINISHED
    assert "which is starting" in answer.stdout


def test_who_wants_its_home_is_told_of_another_home_and_not_of_another_data_folder(home: Path) -> None:
    with runfile.locked(home), pytest.raises(Conflict) as caught, runfile.locked(home):
        pass
    assert "--home names another" in caught.value.next_step


def test_after_it_was_stopped_nobody_is_led_to_found_a_platform_in_its_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "stop", lambda _: True)
    answer = CliRunner().invoke(app, ["down", "--data-dir", str(home)])
    assert answer.exit_code == 0
    assert "node is stopped" in answer.stdout
    assert f"qubix provider join --home {home}" in "".join(answer.stderr.split("\n"))
    assert "qubix up" not in answer.stderr


def test_a_node_that_did_not_run_is_not_said_to_be_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "stop", lambda _: False)
    answer = CliRunner().invoke(app, ["down", "--data-dir", str(home)])
    assert "did not run" in answer.stdout
