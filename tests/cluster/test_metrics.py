"""A running platform is scraped as Prometheus would: by the target files, of every process; and has all that dashboards and alerts ask for."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from qubix.monitoring.questions import CHAIN, SAMPLES
from tests.unit.monitoring.expressions import asked
from tests.whole import Consumer, Whole

pytestmark = pytest.mark.cluster
_QUIET = {
    figure.name: {"job", "process", "instance", *question.labels} for question in (CHAIN, SAMPLES) for figure in question.figures.values()
}
"""What this platform, without a chain and with declared GPUs, has no value of (test_figures has); with the labels that it would have."""
PATIENCE_S = 90.0
"""For what comes with a snapshot, or when Ray has looked at its machines."""


@dataclasses.dataclass
class Scrape:
    """Everything that was answered: metric → type and the labels of its series, those of the target included."""

    kinds: dict[str, str]
    series: dict[str, list[dict[str, str]]]


def targets(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each target that Prometheus finds, with its labels, as cluster_configs/prometheus/prometheus.yml names the files."""
    for path in (*(folder / "targets").glob("*.json"), folder / "ray.json"):
        for group in json.loads(path.read_text()):
            yield from ((address, dict(group["labels"])) for address in group["targets"])


def scrape(whole: Whole) -> Scrape:
    """Ask every target once; those that answer count."""
    found = Scrape({}, {})
    for address, labels in targets(whole.data_dir / "prometheus"):
        try:
            answer = httpx.get(f"http://{address}/metrics", timeout=20)
        except httpx.TransportError:  # other tests end machines and replicas: Prometheus would show it as down
            continue
        assert answer.status_code == 200, address
        own = {**labels, "instance": address}
        found.series.setdefault("up", []).append(own)
        for family in text_string_to_metric_families(answer.text):
            _add(found, family, own)
    return found


def _add(found: Scrape, family: Metric, own: dict[str, str]) -> None:
    for sample in family.samples:
        taken = own.keys() & sample.labels.keys()
        assert not (taken and sample.name.startswith("qubix_")), f"{sample.name}: Prometheus would rename its {taken}"
        found.kinds[sample.name] = family.type
        found.series.setdefault(sample.name, []).append({**sample.labels, **own})


def missing(found: Scrape) -> list[str]:
    """What dashboards and alerts ask for and the scrape does not have."""
    lacking = []
    for one in asked():
        series = [labels for labels in found.series.get(one.metric, []) if one.labels <= labels.keys()]
        if found.kinds.get(one.metric, "gauge") == "gauge":  # of a counter, a series appears with what it counts
            series = [labels for labels in series if one.values <= labels.items()]
        if not series and not (one.metric in _QUIET and one.labels <= _QUIET[one.metric]):
            lacking.append(f"{one.where}: {one.metric} {sorted(one.labels)} {sorted(one.values)}")
    return lacking


def test_what_dashboards_and_alerts_ask_for_is_what_a_running_platform_exports(whole: Whole) -> None:
    found = scrape(whole)
    if "qubix_attempts_ended_total" not in found.series:
        consumer = Consumer(whole)
        consumer.ended(consumer.run("print('counted')"))
    deadline = time.monotonic() + PATIENCE_S
    while (lacking := missing(found)) and time.monotonic() < deadline:
        time.sleep(1)
        found = scrape(whole)
    assert lacking == []
    processes = {labels["process"] for labels in found.series["up"] if labels["job"] == "qubix"}
    assert processes == {"controller", "fabric", "web"}
    assert {labels["job"] for labels in found.series["up"]} == {"qubix", "ray", "haproxy"}


def test_a_scrape_names_no_user_no_job_and_no_machine(whole: Whole) -> None:
    consumer = Consumer(whole)
    me = consumer.client.get("/api/auth/me")
    said = [labels for series in scrape(whole).series.values() for labels in series if labels["job"] == "qubix"]
    told = {value for labels in said for value in labels.values()}
    assert told
    for private in (me["id"], me["email"], *(machine.node_id for machine in whole.machines.values())):
        assert not any(private in value for value in told), private


def test_metrics_listen_on_the_loopback_alone(whole: Whole) -> None:
    assert all(where.startswith("127.0.0.1:") for where, labels in targets(whole.data_dir / "prometheus") if labels["job"] != "ray")
