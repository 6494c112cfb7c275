"""What `qubix offers` says of itself and of what is not free."""

from __future__ import annotations

from typer.testing import CliRunner

from qubix.cli.main import app


def test_the_help_shows_the_list_of_regions_in_its_example() -> None:
    said = " ".join(CliRunner().invoke(app, ["offers", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "region in [eu,us]'." in said
