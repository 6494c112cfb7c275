"""Each alert rule fires when what it watches is sick, not while it is well, and says where to read what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.promql import Series
from tests.unit.monitoring.alert_cases import CASES

ROOT = Path(__file__).parents[3]
RULES_FILE = ROOT / "cluster_configs" / "prometheus" / "alerts.yml"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
}
END_S = 3600.0


def for_s(rule: dict[str, Any]) -> float:
    return 60.0 * float(str(rule.get("for", "0m")).removesuffix("m"))


def test_every_rule_has_its_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_fires_when_what_it_watches_is_sick_and_not_while_it_is_well(name: str) -> None:
    sick, well = (Series(series) for series in CASES[name])
    assert sick.firing(RULES[name], END_S, for_s(RULES[name]))
    assert not well.firing(RULES[name], END_S, for_s(RULES[name]))


@pytest.mark.parametrize("name", RULES)
def test_an_alert_waits_before_it_fires(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert name in (
        "LedgerAuditFinding",
        "LedgerNotAudited",
        "LeaderChanges",
        "LoopFails",
        "RecoverySlow",
        "AttemptsLost",
        "PlatformFaults",
    ) or for_s(rule)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_what_happened_and_where_to_read_what_to_do(name: str) -> None:
    notes = RULES[name]["annotations"]
    page, _, anchor = notes["runbook"].partition("#")
    assert f"\n### {name}\n" in (ROOT / page).read_text()
    assert anchor == name.lower()
    spoken = set(re.findall(r"\$labels\.(\w+)", notes["summary"]))
    assert all(re.search(rf"by \([^)]*\b{label}\b", RULES[name]["expr"]) for label in spoken), "a label that the expression drops"
