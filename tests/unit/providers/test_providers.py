"""Heartbeats, heat, windows and reputation: the pure rules."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.errors import Invalid
from qubix.providers import model
from qubix.providers.model import COOL_BY_C, CRITICAL_C, HOT_C, LIMIT_C, Heat, Presence, Reputation, VersionMismatch, Window


@pytest.mark.parametrize(
    ("status_s", "metrics_s", "wanted"),
    [
        (0, 0, Presence.ONLINE),
        (60, 60, Presence.ONLINE),
        (61, 5, Presence.STALE),
        (5, 61, Presence.STALE),
        (5, 1000, Presence.STALE),
        (5, None, Presence.STALE),
        (90, 90, Presence.STALE),
        (90.1, 1, Presence.OFFLINE),
        (None, None, Presence.OFFLINE),
    ],
)
def test_a_node_is_online_then_stale_then_offline(status_s: float | None, metrics_s: float | None, wanted: Presence) -> None:
    assert model.presence(status_s, metrics_age_s=metrics_s) is wanted


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0, 1000))
def test_p_a09_an_online_node_has_metrics_of_at_most_60_s_and_presence_only_worsens_with_age(a: float, b: float, more: float) -> None:
    order = list(Presence)
    assert model.presence(a, metrics_age_s=b) is not Presence.ONLINE or b <= 60
    assert order.index(model.presence(a + more, metrics_age_s=b + more)) >= order.index(model.presence(a, metrics_age_s=b))


@given(st.floats(0, 150), st.sampled_from(Heat))
def test_heat_follows_its_lines_and_holds_until_it_has_cooled(celsius: float, before: Heat) -> None:
    found = model.heat(celsius, before=before)
    order = list(Heat)
    fresh = model.heat(celsius)
    assert order.index(found) >= order.index(fresh)
    assert order.index(found) <= max(order.index(fresh), order.index(before))
    if celsius < HOT_C - COOL_BY_C:
        assert found is Heat.NORMAL
    assert (fresh is Heat.CRITICAL) == (celsius >= CRITICAL_C)
    assert (fresh in (Heat.OVER_LIMIT, Heat.CRITICAL)) == (celsius >= LIMIT_C)


@given(st.sampled_from(Heat))
def test_an_unknown_temperature_changes_nothing(before: Heat) -> None:
    assert model.heat(None, before=before) is before


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_reputation_is_the_share_that_ended_without_the_providers_fault(ended: int, faulted: int) -> None:
    share = Reputation(ended, min(ended, faulted)).share
    assert share is None if ended == 0 else share == (ended - min(ended, faulted)) / ended


def test_a_window_opens_and_closes_in_utc() -> None:
    monday = Window(0, 9 * 60, 17 * 60)
    at = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
    assert model.is_open([monday], at)
    assert not model.is_open([monday], at - dt.timedelta(minutes=1))
    assert not model.is_open([monday], at.replace(hour=17))
    assert not model.is_open([monday], at + dt.timedelta(days=1))
    assert model.is_open([], at)
    assert model.is_open([monday], at.astimezone(dt.timezone(dt.timedelta(hours=-8))))


@pytest.mark.parametrize(
    "row",
    [
        {"weekday": 7, "opens": 0, "closes": 1},
        {"weekday": 0, "opens": 5, "closes": 5},
        {"weekday": 0, "opens": 0, "closes": 1441},
        {"weekday": 0},
    ],
)
def test_a_window_that_cannot_be_is_refused(row: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        model.check_windows([row])
    with pytest.raises(Invalid):
        model.check_windows([{"weekday": 0, "opens": n, "closes": n + 1} for n in range(51)])


def test_another_release_is_refused_and_a_node_without_ray_is_not() -> None:
    model.check_versions("1", "2", server_qubix="1", server_ray="2")
    model.check_versions("1", model.NO_RAY, server_qubix="1", server_ray="2")
    with pytest.raises(VersionMismatch, match=r"Ray 3.*Ray 2"):
        model.check_versions("1", "3", server_qubix="1", server_ray="2")
    with pytest.raises(VersionMismatch, match=r"Qubix none.*Qubix 1"):
        model.check_versions(model.NO_RAY, "2", server_qubix="1", server_ray="2")


@pytest.mark.parametrize("region", ["", "EU", "eu west", "x" * 41, "eu\n"])
def test_a_region_that_cannot_be_is_refused(region: str) -> None:
    with pytest.raises(Invalid):
        model.check_region(region)
