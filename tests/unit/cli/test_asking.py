"""What a command cannot do without: asked for at a terminal, named as an option everywhere else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx
import pytest

from qubix.cli import main, run
from qubix.cli.output import OptionMissing, Output, ask
from tests.unit.cli.platform import client_of


@pytest.fixture(autouse=True)
def _logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is logged in at a platform that would refuse the connection: nothing must come that far."""
    path = tmp_path / "config.json"
    path.write_text('{"url": "http://127.0.0.1:9", "api_key": "qk_x"}')
    monkeypatch.setenv("QUBIX_CONFIG", str(path))


COMMANDS = {
    "signup": "--email and --password",
    "login": "--email and --password",
    "escrow dispute 1": "--evidence",
    "escrow resolve 1 --to-payee 0": "--reason",
    "provider join": "--price",
}


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["qubix", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("flags", [(), ("-y",)])
@pytest.mark.parametrize(("command", "options"), COMMANDS.items())
def test_where_nobody_can_be_asked_the_options_are_named(
    command: str, options: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: bool(flags), raising=False)
    assert ended(monkeypatch, *command.split(), *flags) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: {options} must be given" in said.err


@pytest.mark.parametrize(("command", "options"), COMMANDS.items())
def test_with_json_the_lacking_options_are_one_document(
    command: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert ended(monkeypatch, *command.split(), "--json") == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert error["code"] == "option_missing"
    assert options in error["next_step"]
    assert said.err == ""


AGREEING = ("cancel 1", "keys revoke 1", "escrow dispute 1 --evidence bad", "escrow resolve 1 --reason so", "provider leave")


@pytest.mark.parametrize("command", AGREEING)
def test_what_ends_or_costs_something_is_not_agreed_by_asking_for_json(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert ended(monkeypatch, *command.split(), "--json") == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert (error["code"], error["next_step"]) == ("not_agreed", "pass -y to agree")
    assert said.err == ""


@pytest.mark.parametrize("command", AGREEING)
def test_what_ends_or_costs_something_is_not_agreed_where_nobody_can_be_asked(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert ended(monkeypatch, *command.split()) == 2
    assert "pass -y to agree" in capsys.readouterr().err


def test_a_yes_beforehand_is_enough_with_json() -> None:
    Output(as_json=True).confirm("Cancel it?", yes=True)


def test_a_run_that_is_not_agreed_to_gives_its_quote_back_and_makes_no_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "DELETE":
            return httpx.Response(204)
        return httpx.Response(200, json={"quote": {"id": "q1", "ceiling": 1000}, "offer": None})

    monkeypatch.setattr(run, "connect", lambda: client_of(answer))
    assert ended(monkeypatch, "run", "mnist", "--json") == 2
    assert asked == ["POST /api/quotes", "DELETE /api/quotes/q1"]
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "not_agreed"
    assert "Lock the ceiling of 1 000 QU" in error["detail"]


def test_what_is_given_is_not_asked_for() -> None:
    assert ask(Output(as_json=True), evidence=("it broke", "What is wrong")) == ["it broke"]


def test_only_what_lacks_is_named() -> None:
    with pytest.raises(OptionMissing, match=r"^--password must be given"):
        ask(Output(as_json=True), email=("a@b", "Email"), password=(None, "Password"))


def test_the_command_lines_page_names_the_evidence() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    assert "qubix escrow dispute JOB --evidence" in page
