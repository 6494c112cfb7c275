"""The sweep's own decisions: a schedule that replays, and what a job's return tells of which promise."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from tests.faults.places import places
from tests.faults.sweep.recovery import HEAD, KILLED, Wound, recovery, steps, without_a_device_s
from tests.faults.sweep.schedule import RARE, Deed, Fault, deck, schedule


def test_a_seed_gives_the_same_faults_again_and_another_seed_others() -> None:
    assert list(schedule(7, 200)) == list(schedule(7, 200))
    assert list(schedule(7, 200)) != list(schedule(8, 200))
    assert list(schedule(7, 50)) == list(schedule(7, 200))[:50]


def test_as_many_faults_as_the_deck_has_cards_are_each_of_them_once() -> None:
    dealt = Counter((one.deed, one.target, one.mode) for one in schedule(3, len(deck())))
    assert dealt == Counter((one.deed, one.target, one.mode) for one in deck())


def test_every_place_of_the_code_is_struck() -> None:
    struck = {kind.target.partition("/")[0] for kind in deck() if kind.deed is Deed.STRIKE}
    assert struck | RARE == set(places())


def test_a_job_that_waited_when_the_head_was_killed_counts_as_the_heads() -> None:
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    after = [began + dt.timedelta(seconds=seconds) for seconds in range(60)]
    killed = Wound(KILLED, after[0], "n", Fault(1, Deed.KILL, "raylet", 0, 0.0))
    head = Wound(HEAD, after[30], None, Fault(2, Deed.KILL, "head", None, 0.0))
    assert recovery(killed, after[10], "j", [killed, head]).seconds == 10
    late = recovery(killed, after[50], "j", [killed, head])
    assert (late.promise, late.seconds, late.detail) == (HEAD, 20, "#1 kill raylet, then #2 kill head, job j")
    waited = [recovery(killed, at, "j", [killed, head], 4.0).waited_s for at in (after[10], after[50])]
    assert waited == [4.0, 0.0], "what it waited before the head's death is not part of the head's time"


def test_a_late_job_says_when_it_was_assigned_again_and_how_often_it_never_ran() -> None:
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    killed = Wound(KILLED, began, "n", Fault(1, Deed.KILL, "raylet", 0, 0.0))
    row = {"ended_at": began + dt.timedelta(seconds=10), "created_at": began + dt.timedelta(seconds=50)}
    assert steps(killed, {**row, "between": 0}, 0.0) == "given up after 10.0 s, assigned after 50.0 s"
    assert steps(killed, {**row, "between": 2}, 0.0) == "given up after 10.0 s, assigned after 50.0 s, after 2 that never ran"
    assert steps(killed, {**row, "between": 0}, 7.0) == "given up after 10.0 s, assigned after 50.0 s, 7.0 s of it without a free device"


@pytest.mark.parametrize(("devices", "waited_s"), [(1, 10), (2, 25)])
def test_a_job_waits_for_a_device_while_no_other_machine_has_as_many_free(devices: int, waited_s: float) -> None:
    at = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds) for seconds in range(61)]
    gap = {"ended_at": at[10], "created_at": at[50], "devices": devices}
    taken = [("b", 0, 30, 1), ("b", 20, 35, 1), ("c", 5, 30, 2), ("c", 30, 60, 1)]
    rows = [{"node_id": node, "created_at": at[since], "ended_at": at[until], "devices": count} for node, since, until, count in taken]
    assert without_a_device_s(gap, rows) == waited_s
    assert without_a_device_s(gap, []) == 0
