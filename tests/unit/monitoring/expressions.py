"""What the dashboards and alert rules ask for: each metric with the labels that the expression relies on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

CONFIGS = Path(__file__).parents[3] / "cluster_configs"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A selector in an expression. Args: labels that must be there; values of those that must equal something."""

    where: str
    metric: str
    labels: frozenset[str]
    values: frozenset[tuple[str, str]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, the expression), of all dashboards and rules."""
    for path in sorted((CONFIGS / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]
    for group in yaml.safe_load((CONFIGS / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alerts.yml: {rule['alert']}", rule["expr"]


def asked() -> list[Asked]:
    """Every selector of them."""
    return [found for where, expression in expressions() for found in _selectors(promql.parse(expression), where, frozenset())]


def _selectors(node: Any, where: str, grouped: frozenset[str]) -> Iterator[Asked]:
    match type(node).__name__:
        case "VectorSelector":
            matchers = node.matchers.matchers
            values = frozenset((m.name, m.value) for m in matchers if m.op == promql.MatchOp.Equal)
            yield Asked(where, node.name, grouped | {m.name for m in matchers}, values)
        case "MatrixSelector":
            yield from _selectors(node.vector_selector, where, grouped)
        case "AggregateExpr":
            named = frozenset(node.modifier.labels) if node.modifier is not None else frozenset()
            yield from _selectors(node.expr, where, grouped | named)
        case "BinaryExpr":
            ignored = set(node.modifier.matching.labels) if node.modifier is not None and node.modifier.matching is not None else set()
            yield from _selectors(node.lhs, where, grouped)
            yield from _selectors(node.rhs, where, grouped - ignored)
        case "Call":
            for argument in node.args:
                yield from _selectors(argument, where, grouped)
        case "ParenExpr" | "UnaryExpr" | "SubqueryExpr":
            yield from _selectors(node.expr, where, grouped)
