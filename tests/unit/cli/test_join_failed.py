"""`qubix provider join` that fails before the machine has joined leaves nothing of a home that it made itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from qubix.agent.devices import BadDeclaration
from qubix.agent.join import JoinRefused
from qubix.cli import member
from qubix.cli.client import Client
from qubix.cli.main import app

MADE = {"token": "t", "qubix_version": "1", "ray_version": "1", "python_version": "3"}


@pytest.fixture(autouse=True)
def a_platform_that_gives_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"url": "http://platform.example", "api_key": "qk_x"}')
    config.chmod(0o600)
    monkeypatch.setenv("QUBIX_CONFIG", str(config))
    answers = httpx.MockTransport(lambda _: httpx.Response(200, json=MADE))
    monkeypatch.setattr(member, "Client", lambda url, key: Client(url, key, transport=answers))
    for name in ("adopt_orphans", "end_all_below", "check_versions"):
        monkeypatch.setattr(member, name, lambda *_: None)


def join(home: Path, declared: str = "nonsense") -> Result:
    cluster = ["--address", "127.0.0.1:1", "--token-file", str(home.parent / "token")]
    return CliRunner().invoke(app, ["provider", "join", "--price", "5", "--declare-gpu", declared, "--home", str(home), *cluster])


def test_a_declaration_that_does_not_read_leaves_no_home(tmp_path: Path) -> None:
    assert isinstance(join(tmp_path / "home").exception, BadDeclaration)
    assert not (tmp_path / "home").exists()


def test_a_refused_join_leaves_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise JoinRefused("this platform takes no more nodes")

    monkeypatch.setattr(member, "join", refuse)
    assert isinstance(join(tmp_path / "home", "RTX_4090:24GB").exception, JoinRefused)
    assert not (tmp_path / "home").exists()


def test_a_home_that_was_there_keeps_what_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine").write_text("kept")
    join(home)
    assert (home / "mine").read_text() == "kept"
    assert not (home / "spool").exists()


def test_the_log_that_a_detached_join_reads_is_left_to_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / member.SUPERVISOR_LOG).write_text("what happened")
    join(home)
    assert [entry.name for entry in home.iterdir()] == [member.SUPERVISOR_LOG]


def test_a_home_that_has_joined_is_never_unmade(tmp_path: Path) -> None:
    (tmp_path / member.AGENT_FILE).write_text("{}")
    member.unmake(tmp_path)
    assert (tmp_path / member.AGENT_FILE).exists()
