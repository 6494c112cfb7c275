"""When a node that fell out of its cluster tries to join again."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from qubix.cli.member import Member, Membership
from qubix.cli.supervise import BACKOFF_MAX_S, STEADY_S, Comeback, backoff_s
from qubix.fabric.process import RayStartFailed

HOURS_S = 10_000.0


def test_who_cannot_join_waits_longer_each_time_however_long_it_had_run_before_and_however_long_each_try_takes() -> None:
    comeback, now, waits = Comeback(jitter=lambda: 0.5), HOURS_S, []
    comeback.fell(now, ran_s=HOURS_S)
    for _ in range(8):
        waits.append(comeback.due_at - now)
        now = comeback.due_at + STEADY_S + 1.0
        comeback.failed(now)
    assert waits[0] == backoff_s(1)
    assert all(later > earlier for earlier, later in pairwise(waits[:7]))
    assert max(waits) == BACKOFF_MAX_S


def test_a_node_that_ran_steadily_has_a_fresh_back_off_and_one_that_falls_at_once_has_not() -> None:
    comeback = Comeback(jitter=lambda: 0.5)
    comeback.fell(0.0, ran_s=1.0)
    comeback.fell(0.0, ran_s=1.0)
    assert comeback.due_at == backoff_s(2)
    comeback.fell(0.0, ran_s=STEADY_S + 1.0)
    assert comeback.due_at == backoff_s(1)


def test_machines_that_fell_out_together_come_back_at_different_moments() -> None:
    early, late = Comeback(jitter=lambda: 0.0), Comeback(jitter=lambda: 1.0)
    for machine in (early, late):
        machine.failed(0.0)
        machine.failed(0.0)
    assert late.due_at == 3 * early.due_at == 1.5 * backoff_s(2)


class Refused(Member):
    """A node whose every try to join fails. `tries`: how many there were."""

    tries = 0

    def _start_node(self) -> None:
        self.tries += 1
        raise RayStartFailed("the head is busy")

    def look(self, now: float) -> None:
        self._look_after_node(now)

    @property
    def due_at(self) -> float:
        return self._comeback.due_at


def test_a_refused_node_does_not_try_at_every_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qubix.cli.member.head_answers", lambda _: True)
    monkeypatch.setattr("qubix.cli.member.end_all_below", lambda _: None)
    plan = Membership("http://platform", "key", "head:1", tmp_path, tmp_path, (), "node", "eu", 1)
    said: list[str] = []
    node = Refused(plan, said.append)
    for tries in range(1, 6):
        before = time.monotonic()
        node.look(before + HOURS_S)
        assert node.tries == tries
        assert node.due_at >= before + 0.5 * backoff_s(tries)
        node.look(before)
        assert node.tries == tries, "it waits"
    assert said[0].startswith("cannot join, tried again in")
