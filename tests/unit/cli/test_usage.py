"""A command line that is wrong: exit code 2, and with --json one document on stdout all the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qubix import __version__
from qubix.cli import main


@pytest.fixture(autouse=True)
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged in at a platform that is never asked."""
    file = tmp_path / "config.json"
    file.write_text('{"url": "http://platform.example", "api_key": "qk_x"}')
    monkeypatch.setenv("QUBIX_CONFIG", str(file))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["qubix", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("line", "said", "helps"),
    [
        ("wallet history --type x", "--type", "qubix wallet history"),
        ("wallet history --since 7days", "7days", "qubix wallet history"),
        ("wallet faucet abc", "units", "qubix wallet faucet"),
        ("wallet withdraw 1", "ADDRESS", "qubix wallet withdraw"),
        ("treasury approve x", "hold", "qubix treasury approve"),
        ("nosuch", "nosuch", "qubix"),
    ],
)
def test_with_json_a_wrong_command_line_is_one_document(
    line: str, said: str, helps: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *line.split(), "--json") == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert told.err == ""
    assert error["code"] == "usage"
    assert said in error["detail"]
    assert error["next_step"] == f"{helps} --help shows what it takes"


def test_the_flag_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--json", "wallet", "faucet", "5") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_without_json_a_wrong_command_line_says_nothing_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nosuch") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "nosuch" in told.err


def test_with_json_a_command_that_is_right_ends_as_it_always_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "version", "--json") == 0
    assert "version" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "option", "dates"),
    [
        ("wallet history --since 2026-13-01", "--since", True),
        ("wallet history --until soon", "--until", True),
        ("run mnist --max-duration abc", "--max-duration", False),
        ("run mnist --vram 24XB", "--vram", None),
    ],
)
def test_a_quantity_that_cannot_be_read_is_told_with_its_option_and_what_that_takes(
    line: str, option: str, dates: bool | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *line.split(), "--json") == 2
    detail = json.loads(capsys.readouterr().out)["error"]["detail"]
    assert f"'{option}'" in detail
    assert repr(line.split()[-1]) in detail
    if dates is not None:
        assert "a duration such as 90s, 15min, 2h or 7d" in detail
        assert ("2026-11-22" in detail) is dates
    assert run(monkeypatch, *line.split()) == 2
    assert option in capsys.readouterr().err


def test_the_release_is_told_by_option_and_by_command() -> None:
    for asked in ("--version", "version"):
        answer = CliRunner().invoke(main.app, [asked])
        assert (answer.exit_code, answer.stdout.split()) == (0, [__version__])
