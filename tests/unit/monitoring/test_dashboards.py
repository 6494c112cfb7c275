"""The dashboards are what their source says, in the form that Grafana's provisioning reads, and ask for figures that are documented."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cluster_configs.grafana import build
from qubix.monitoring.collector import PlatformCollector
from qubix.monitoring.questions import QUESTIONS
from serve_app.metrics import Measurements
from tests.unit.monitoring.expressions import CONFIGS, asked
from tests.unit.monitoring.test_collector import HandClock

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
DOCUMENTED = set(re.findall(r"`(qubix_\w+)`", PAGE))


def panels(dashboard: build.Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(build.document(dashboard))["panels"]
    return found


@pytest.mark.parametrize("dashboard", build.DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_a_dashboard_file_is_what_its_source_says(dashboard: build.Dashboard) -> None:
    path = build.FOLDER / f"{dashboard.uid}.json"
    assert path.read_text() == build.document(dashboard), "python -m cluster_configs.grafana.build writes it anew"


def test_no_file_is_left_of_a_dashboard_that_is_gone() -> None:
    assert {path.stem for path in build.FOLDER.iterdir()} == {dashboard.uid for dashboard in build.DASHBOARDS}


@pytest.mark.parametrize("dashboard", build.DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_panels_have_ids_of_their_own_and_do_not_cover_each_other(dashboard: build.Dashboard) -> None:
    found = panels(dashboard)
    assert len({panel["id"] for panel in found}) == len(found)
    places = [panel["gridPos"] for panel in found]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


@pytest.mark.parametrize("dashboard", build.DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_every_panel_asks_the_chosen_prometheus_and_its_queries_are_told_apart(dashboard: build.Dashboard) -> None:
    made = json.loads(build.document(dashboard))
    assert [variable["name"] for variable in made["templating"]["list"]] == ["datasource"]
    for panel in (panel for panel in made["panels"] if panel["type"] != "row"):
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)


def test_the_provisioning_names_the_folder_of_the_dashboards_and_the_data_source_that_they_choose_first() -> None:
    (source,) = yaml.safe_load((CONFIGS / "grafana/provisioning/datasources/qubix.yml").read_text())["datasources"]
    assert source["name"] == json.loads(build.document(build.MONEY))["templating"]["list"][0]["current"]["value"]
    providers = yaml.safe_load((CONFIGS / "grafana/provisioning/dashboards/qubix.yml").read_text())["providers"]
    assert str(build.FOLDER).endswith(providers[0]["options"]["path"].removeprefix("/opt/qubix"))


def test_what_a_legend_names_its_expression_keeps() -> None:
    for dashboard in build.DASHBOARDS:
        for panel in (panel for row in dashboard.rows.values() for panel in row):
            for legend, expression in panel.queries.items():
                for label in re.findall(r"{{(\w+)}}", legend):
                    assert re.search(rf"by \([^)]*\b{label}\b", expression), (panel.title, label)


def test_every_figure_that_is_asked_for_is_documented() -> None:
    suffixes = r"_(bucket|count|sum)$"
    ours = {
        one.metric if one.metric in DOCUMENTED else re.sub(suffixes, "", one.metric) for one in asked() if one.metric.startswith("qubix_")
    }
    assert ours - DOCUMENTED == set()


def test_every_figure_that_is_exported_is_documented_and_every_one_that_is_documented_exists() -> None:
    platform, web = build_registries()
    exported = {figure.name for question in QUESTIONS for figure in question.figures.values()} | platform | web
    loops = {"qubix_loop_seconds", "qubix_loop_failures_total", "qubix_loop_success_timestamp_seconds"}
    pool = {"qubix_database_pool_connections", "qubix_database_pool_limit"}
    assert exported | loops | pool | {"qubix_breaker_open"} == DOCUMENTED


def build_registries() -> tuple[set[str], set[str]]:
    """What the controller and a replica register beside the questions."""
    web = Measurements().registry
    platform = CollectorRegistry()
    collector = PlatformCollector(platform, HandClock(), Path("/"))
    collector.take({}, 0.1)
    collector.take_audit([], 0.1)
    return _names(platform), _names(web)


def _names(registry: Any) -> set[str]:
    families = [family for family in registry.collect() if family.name.startswith("qubix_")]
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
