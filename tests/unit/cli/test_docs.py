"""What the documents say is what the program has."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from qubix.cli.main import app
from qubix.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_settings_page(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "settings.md").read_text()


def test_no_setting_of_the_page_is_unknown() -> None:
    rows = [line.split("`")[1] for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `")]
    assert set(rows) == set(Settings.model_fields)


def test_every_command_is_in_the_command_lines_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"qubix {name}" in page or name == "version", name


def test_readme_opens_with_the_two_commands() -> None:
    top = (ROOT / "README.md").read_text()[:700]
    assert "make demo" in top
    assert "make test" in top


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["version", "--json"]).exit_code == 0
