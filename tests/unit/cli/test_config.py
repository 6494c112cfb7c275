"""The file that keeps a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubix.cli import config
from qubix.kernel.errors import Unauthenticated


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUBIX_CONFIG", str(tmp_path / "below" / "config.json"))


def test_the_file_is_private_to_its_owner() -> None:
    path = config.save(config.Account("http://a.example", "qk_1"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_open_file_is_closed_to_others_when_it_is_written_again() -> None:
    path = config.save(config.Account("http://a.example", "qk_1"))
    path.chmod(0o644)
    config.save(config.Account("http://a.example", "qk_2"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert config.load().api_key == "qk_2"


def test_what_is_saved_is_loaded() -> None:
    config.save(config.Account("http://a.example/", "qk_1"))
    assert config.load() == config.Account("http://a.example", "qk_1")


def test_without_a_file_nobody_is_logged_in_and_the_error_says_what_to_do() -> None:
    with pytest.raises(Unauthenticated) as refused:
        config.load()
    assert "qubix signup" in refused.value.next_step


def test_a_broken_file_is_reported_not_believed() -> None:
    path = config.save(config.Account("http://a.example", "qk_1"))
    path.write_text("[]")
    with pytest.raises(Unauthenticated):
        config.load()


def test_forgetting_twice_is_harmless() -> None:
    config.save(config.Account("http://a.example", "qk_1"))
    assert config.forget()
    assert not config.forget()
