"""The page of faults and promises: each row is there once, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if re.match(r"\| P?\d+ \|", line)]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([\w/]+\.py::\w+)`", row[-1] or row[-2])})


def test_every_fault_and_every_promise_has_its_row() -> None:
    assert [row[0] for row in ROWS] == [*(str(number) for number in range(1, 36)), *(f"P{number}" for number in range(1, 15))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_test_or_says_why_not(row: list[str]) -> None:
    assert "::" in row[-1] or "no test: " in row[-2] + row[-1] or "](" in row[-1]


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert re.search(rf"^(async )?def {function}\(", (TESTS / file).read_text(), re.MULTILINE)
