"""The commands that a command names as useful next: each works when it is copied."""

from __future__ import annotations

import ast
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import typer.core
from typer.testing import CliRunner

from qubix.cli import checks, provider, runfile, up
from qubix.cli.main import app
from qubix.cli.output import callable_here
from qubix.cli.processes import seen

CLI = Path(up.__file__).parent
ADDRESS = "http://127.0.0.1:4711"


@pytest.fixture
def default_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody is logged in, and the default data folder is the test's own."""
    monkeypatch.setenv("QUBIX_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.setattr(runfile, "default_data_dir", lambda: tmp_path / "default")
    return tmp_path / "default"


def hints(said: str) -> list[str]:
    line = next(line for line in said.splitlines() if line.startswith("next:"))
    return line.removeprefix("next:").strip().split("   ")


def bring_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `qubix up --detach` says over a folder whose platform comes up."""
    run = runfile.RunFile(supervisor=seen(os.getpid()), state="ready", urls={"application": ADDRESS})

    def started(*_: object, **__: object) -> tuple[runfile.RunFile, str]:
        folder.mkdir()
        runfile.write(folder, run)
        return run, "qk_first"

    monkeypatch.setattr(up, "start_detached", started)
    answer = CliRunner().invoke(app, ["up", "--detach", "--data-dir", str(folder)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_after_up_on_a_folder_of_ones_own_every_hint_names_it(tmp_path: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my platform"
    said = bring_up(folder, monkeypatch)
    place = f"--data-dir '{folder}'"
    assert hints(said) == [
        f"qubix status {place}",
        f"qubix signup --url {ADDRESS}",
        f"qubix provider join {place}",
        f"qubix down {place}",
    ]
    assert f"qubix login --url {ADDRESS} --key qk_first" in said


def test_after_up_on_the_default_folder_the_hints_are_bare(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bring_up(default_dir, monkeypatch)
    assert hints(said) == ["qubix status", "qubix signup", "qubix provider join", "qubix down"]


def test_whoever_is_logged_in_elsewhere_is_told_the_new_platforms_address(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(os.environ["QUBIX_CONFIG"]).write_text('{"url": "http://elsewhere.example", "api_key": "qk_x"}')
    assert f"qubix signup --url {ADDRESS}" in hints(bring_up(default_dir, monkeypatch))


@pytest.mark.parametrize("command", ["status", "down"])
def test_a_platform_that_does_not_run_is_started_on_the_folder_that_was_asked_about(
    command: str, tmp_path: Path, default_dir: Path
) -> None:
    said = CliRunner().invoke(app, [command, "--data-dir", str(tmp_path / "other")]).output
    assert f"qubix up --data-dir {tmp_path / 'other'}" in hints(said)


@pytest.mark.parametrize(("home", "leaving"), [("default/node", "qubix provider leave"), ("my node", "qubix provider leave --home '{}'")])
def test_after_a_detached_join_the_way_to_leave_names_a_home_of_ones_own(
    home: str, leaving: str, tmp_path: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runfile.RunFile(supervisor=seen(os.getpid()), state="ready")
    monkeypatch.setattr(provider, "start_and_wait", lambda *_: run)
    said = CliRunner().invoke(app, ["provider", "join", "--detach", "--price", "5", "--home", str(tmp_path / home)]).output
    assert hints(said)[-1] == leaving.format(tmp_path / home)


def test_the_doctor_of_a_folder_without_a_platform_says_how_to_start_one_on_it(tmp_path: Path, default_dir: Path) -> None:
    assert {checks.database(tmp_path).next_step, checks.readiness(tmp_path).next_step} == {f"qubix up --data-dir {tmp_path}, then again"}


def literal_hints() -> Iterator[str]:
    """Every command in a `then=` of the command line, what is filled in later replaced by a word."""
    for path in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "then":
                yield from (words for words in _texts(node.value) if words.startswith("qubix "))


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    else:
        for part in ast.iter_child_nodes(node):
            yield from _texts(part)


@pytest.mark.parametrize("hint", sorted(set(literal_hints())))
def test_every_hint_is_a_command_with_the_arguments_and_options_that_it_has(hint: str) -> None:
    words = ["1" if word == "NEW" else word for word in shlex.split(hint)[1:]]
    command = typer.main.get_command(app)
    context = typer.Context(command)
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{hint}: there is no {name}"
        command, context = found, typer.Context(found, parent=context)
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert left == [], hint
    given = command.make_parser(context).parse_args(list(words))[0]
    lacking = [param.name for param in command.params if param.required and given.get(param.name) is None]
    assert lacking == [], hint


def test_a_hint_names_the_command_as_it_was_called_where_the_shell_does_not_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv/bin/qubix"), "demo"])
    assert callable_here("qubix up") == ".venv/bin/qubix up"
    monkeypatch.setattr(sys, "argv", ["/opt/q x/bin/qubix", "demo"])
    assert callable_here("qubix up") == "'/opt/q x/bin/qubix' up"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qubix").touch(0o755)
    assert callable_here("qubix up") == "qubix up"
