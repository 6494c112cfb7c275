"""As much of PromQL as the alert rules use, over series that a test writes down: so that rules are tried where no Prometheus is.

The parser is the real grammar (promql-parser); where promtool is installed, the same series are also given to it, and both must agree.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import promql_parser as promql

LOOKBACK_S = 300.0
Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_COMPUTE: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_AGGREGATE: dict[str, Callable[[list[float]], float]] = {"sum": math.fsum, "max": max, "min": min, "count": len}


def written_values(text: str) -> list[float | None]:
    """promtool's notation: `1x3` is four ones, `0+2x3` is 0 2 4 6, `_x3` is nothing, three times."""
    values: list[float | None] = []
    for part in text.split():
        start, step, times = re.fullmatch(r"(_|[\d.]+)(?:\+([\d.]+))?(?:x(\d+))?", part).groups()  # type: ignore[union-attr]
        if start == "_":
            values += [None] * int(times or 1)
        else:
            values += [float(start) + float(step or 0) * n for n in range(int(times or 0) + 1)]
    return values


class Series:
    """Series by their text, one value each `interval_s` from 0."""

    def __init__(self, written: Mapping[str, str], *, interval_s: float = 60.0) -> None:
        self._points: dict[Labels, list[tuple[float, float]]] = {}
        for text, values in written.items():
            selector = promql.parse(text)
            labels = frozenset({("__name__", selector.name), *((m.name, m.value) for m in selector.matchers.matchers)})
            points = [(n * interval_s, value) for n, value in enumerate(written_values(values)) if value is not None]
            self._points[labels] = points

    def firing(self, rule: Mapping[str, Any], at_s: float, for_s: float, *, step_s: float = 60.0) -> set[Labels]:
        """The label sets for which a rule's expression has held since `for_s` ago."""
        expression = promql.parse(rule["expr"])
        moments = [at_s - n * step_s for n in range(int(for_s // step_s) + 1)]
        held = [set(self._vector(expression, moment)) for moment in moments]
        return set.intersection(*held)

    def _vector(self, node: Any, at: float) -> Vector:
        found = self._value(node, at)
        assert isinstance(found, dict), node
        return found

    def _value(self, node: Any, at: float) -> Vector | float:
        match type(node).__name__:
            case "NumberLiteral":
                return float(node.val)
            case "ParenExpr":
                return self._value(node.expr, at)
            case "VectorSelector":
                return {labels: points[-1][1] for labels, points in self._selected(node, at, LOOKBACK_S).items()}
            case "AggregateExpr":
                return self._aggregate(node, at)
            case "BinaryExpr":
                return self._binary(node, at)
            case "Call":
                return self._call(node, at)
        raise NotImplementedError(type(node).__name__)

    def _selected(self, selector: Any, at: float, range_s: float) -> dict[Labels, list[tuple[float, float]]]:
        matchers = [promql.Matcher(promql.MatchOp.Equal, "__name__", selector.name), *selector.matchers.matchers]
        found = {}
        for labels, points in self._points.items():
            known = dict(labels)
            within = [point for point in points if at - range_s <= point[0] <= at]
            if within and all(_matches(m, known.get(m.name, "")) for m in matchers):
                found[labels] = within
        return found

    def _aggregate(self, node: Any, at: float) -> Vector:
        assert node.modifier is None or node.modifier.type == promql.AggModifierType.By
        kept = set(node.modifier.labels) if node.modifier is not None else set()
        groups: dict[Labels, list[float]] = {}
        for labels, value in self._vector(node.expr, at).items():
            groups.setdefault(frozenset(pair for pair in labels if pair[0] in kept), []).append(value)
        return {labels: float(_AGGREGATE[str(node.op)](values)) for labels, values in groups.items()}

    def _binary(self, node: Any, at: float) -> Vector | float:
        left, right, op = self._value(node.lhs, at), self._value(node.rhs, at), str(node.op)
        ignored = {"__name__"}
        if node.modifier is not None and node.modifier.matching is not None:
            assert node.modifier.matching.type == promql.LabelModifierType.Exclude
            ignored |= set(node.modifier.matching.labels)
        if isinstance(right, dict) and isinstance(left, dict):
            others = {_without(labels, ignored): value for labels, value in right.items()}
            pairs = [(labels, value, others[key]) for labels, value in left.items() if (key := _without(labels, ignored)) in others]
        elif isinstance(left, dict):
            pairs = [(labels, value, right) for labels, value in left.items()]
        elif isinstance(right, dict):
            pairs = [(labels, left, value) for labels, value in right.items()]
        else:
            return _computed(op, left, right)
        if op == "and":
            return {labels: value for labels, value, _ in pairs}
        if op in _COMPARE:
            return {labels: value for labels, value, other in pairs if _COMPARE[op](value, other)}
        return {_without(labels, ignored): _computed(op, value, other) for labels, value, other in pairs}

    def _call(self, node: Any, at: float) -> Vector | float:
        name, arguments = node.func.name, node.args
        if name == "time":
            return at
        if name == "absent":
            return {} if self._vector(arguments[0], at) else {frozenset(): 1.0}
        if name == "histogram_quantile":
            return self._quantile(float(arguments[0].val), self._vector(arguments[1], at))
        (matrix,) = arguments
        range_s = matrix.range.total_seconds()
        over = {"rate": _rate, "increase": _increase, "changes": _changes, "max_over_time": lambda points, _: max(v for _, v in points)}[
            name
        ]
        selected = self._selected(matrix.vector_selector, at, range_s)
        enough = 2 if name in ("rate", "increase") else 1
        return {_without(labels, {"__name__"}): over(points, range_s) for labels, points in selected.items() if len(points) >= enough}

    def _quantile(self, share: float, buckets: Vector) -> Vector:
        groups: dict[Labels, list[tuple[float, float]]] = {}
        for labels, count in buckets.items():
            groups.setdefault(_without(labels, {"le"}), []).append((float(dict(labels)["le"].replace("+Inf", "inf")), count))
        return {labels: _quantile(share, sorted(steps)) for labels, steps in groups.items()}


def _matches(matcher: Any, value: str) -> bool:
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        return bool((matcher.value == value) is (matcher.op == promql.MatchOp.Equal))
    return (re.fullmatch(matcher.value, value) is not None) is (matcher.op == promql.MatchOp.Re)


def _without(labels: Labels, names: set[str]) -> Labels:
    return frozenset(pair for pair in labels if pair[0] not in names)


def _computed(op: str, left: float, right: float) -> float:
    if op == "/":
        return left / right if right else math.nan
    return _COMPUTE[op](left, right)


def _rate(points: list[tuple[float, float]], range_s: float) -> float:
    return _increase(points, range_s) / range_s


def _increase(points: list[tuple[float, float]], range_s: float) -> float:
    """Of series with regular points and no reset: what grew between the first and the last, for the whole range."""
    return (points[-1][1] - points[0][1]) * range_s / (points[-1][0] - points[0][0])


def _changes(points: list[tuple[float, float]], _range_s: float) -> float:
    return float(sum(before[1] != after[1] for before, after in itertools.pairwise(points)))


def _quantile(share: float, steps: list[tuple[float, float]]) -> float:
    total = steps[-1][1]
    if not total:
        return math.nan
    rank, below, floor = share * total, 0.0, 0.0
    for upper, count in steps:
        if count >= rank:
            return floor if math.isinf(upper) else floor + (upper - floor) * (rank - below) / (count - below)
        below, floor = count, upper
    return floor
