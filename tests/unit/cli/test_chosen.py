"""The settings of `qubix up --set` are refused before anything is started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qubix.cli import main, up
from qubix.cli.chosen import chosen_settings
from qubix.cli.output import WrongUsage


def test_an_unknown_name_is_refused_with_what_was_meant() -> None:
    with pytest.raises(WrongUsage, match="no setting fee_bp") as refused:
        chosen_settings({"fee_bp": "1"})
    assert "did you mean fee_bps" in refused.value.next_step


def test_a_name_like_no_other_is_sent_to_the_page_of_settings() -> None:
    with pytest.raises(WrongUsage) as refused:
        chosen_settings({"xxxxxxxx": "1"})
    assert refused.value.next_step == "docs/settings.md lists them all"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("fee_bps", "20000", "at most 10000"),
        ("fee_bps", "much", "At least 0"),
        ("log_level", "loud", "debug"),
        ("cors_origins", "a", "JSON list"),
    ],
)
def test_a_bad_value_is_refused_with_the_field_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(WrongUsage, match=name) as refused:
        chosen_settings({name: value})
    assert value in refused.value.message
    assert allowed in refused.value.next_step


def test_good_settings_pass() -> None:
    chosen_settings({"fee_bps": "250", "rate_limits": "false", "lease_ttl_s": "2.5", "cors_origins": '["http://a.example"]'})


@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_nothing_is_started_with_a_bad_setting_and_the_exit_code_is_2(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(up, "start_detached", lambda *_, **__: started.append(1))
    monkeypatch.setattr(up, "_serve", lambda *_: started.append(1))
    monkeypatch.setattr(sys, "argv", ["qubix", "up", "--data-dir", str(tmp_path), "--set", "nosuch=1", "--json", *flags])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "nosuch"
    assert not started
