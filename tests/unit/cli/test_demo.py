"""What a demo leaves behind: nothing when it held, its logs and the way to look closer when it did not."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qubix.cli import demo, runfile, up
from qubix.cli.checks import Check, Verdict
from qubix.cli.demo_jobs import Expectations
from qubix.cli.main import app
from qubix.cli.processes import seen
from qubix.kernel.errors import Unavailable


def fill(folder: Path) -> None:
    """What a platform that ran has written."""
    for name in (
        "log/web.log",
        "log/serve/replica.log",
        "supervisor.log",
        "secrets/qubix_web.password",
        "pg/PG_VERSION",
        "atlas/agent.log",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} said this")
    (folder / "log" / "empty.log").touch()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the demo with a platform that only writes its files, and a play of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def started(folder: Path, **_: object) -> tuple[runfile.RunFile, str]:
        fill(folder)
        run = runfile.RunFile(supervisor=seen(os.getpid()), urls={"application": "http://a", "ray_dashboard": "http://b"})
        runfile.write(folder, run)
        return run, "qk_first"

    monkeypatch.setattr(up, "start_detached", started)
    monkeypatch.setattr(up, "stop", lambda folder: True)
    monkeypatch.setattr(demo, "sandbox", lambda: Check("sandbox", Verdict.OK, "works"))

    def run(played: Callable[[Expectations], None], *flags: str) -> Result:
        monkeypatch.setattr(demo, "_play", lambda out, folder, run, key, expectations, result: played(expectations))
        return CliRunner().invoke(app, ["demo", *flags])

    return run


def fails(expectations: Expectations) -> None:
    expectations.check("two and two are five", False, 4)


def breaks(expectations: Expectations) -> None:
    raise Unavailable("the node atlas has ended")


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("played", [fails, breaks])
def test_a_failed_demo_keeps_its_logs_and_nothing_else_and_names_keep(
    played: Callable[[Expectations], None], play: Callable[..., Result], tmp_path: Path
) -> None:
    answer = play(played)
    assert answer.exit_code == 100
    [folder] = tmp_path.iterdir()
    assert left(folder) == ["atlas/agent.log", "log/serve/replica.log", "log/web.log", "supervisor.log"]
    assert f"its logs are kept in {folder}: atlas/agent.log" in answer.stdout
    assert "qubix demo --keep" in answer.stdout
    assert "qubix demo --keep" in answer.stderr


def test_a_mistake_of_the_demo_itself_keeps_the_logs_too(play: Callable[..., Result], tmp_path: Path) -> None:
    def stumbles(_: Expectations) -> None:
        raise KeyError("job")

    answer = play(stumbles)
    assert isinstance(answer.exception, KeyError)
    assert left(next(tmp_path.iterdir())) != []
    assert "its logs are kept" in answer.stdout


def test_programs_are_told_where_the_logs_are(play: Callable[..., Result], tmp_path: Path) -> None:
    assert json.loads(play(fails, "--json").stdout)["logs"] == str(next(tmp_path.iterdir()))


def test_a_demo_that_held_or_was_interrupted_leaves_nothing(play: Callable[..., Result], tmp_path: Path) -> None:
    def interrupted(_: Expectations) -> None:
        raise KeyboardInterrupt

    assert play(lambda _: None).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    play(interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_demo_that_failed_names_what_still_runs(play: Callable[..., Result], tmp_path: Path) -> None:
    answer = play(fails, "--keep")
    [folder] = tmp_path.iterdir()
    assert f"qubix status --data-dir {folder}" in answer.stderr
    assert "consumer.json" not in answer.stderr


def test_where_no_sandbox_starts_the_demo_says_so_at_once_and_starts_nothing(
    play: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Check("sandbox", Verdict.FAIL, "init.py cannot be read", "Install Qubix so that everybody can read it (umask 022).")
    monkeypatch.setattr(demo, "sandbox", lambda: found)
    monkeypatch.setattr(up, "start_detached", lambda *_, **__: pytest.fail("it started a platform"))
    answer = play(fails)
    assert answer.exit_code == 100
    assert "init.py cannot be read" in answer.stdout
    assert "umask 022" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_told_to_end_leaves_nothing(play: Callable[..., Result], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        answer = play(lambda _: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert answer.exit_code != 0
    assert list(tmp_path.iterdir()) == []
