"""Keeping a Ray head up, over heads and processes that are none: what is started when, how often, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qubix.cli.head_keeper import DEPLOYS_MAX, FAILURES_MAX, READY_TIMEOUT_S, HeadKeeper, Stage
from qubix.cli.supervise import BACKOFF_MAX_S, STEADY_S, backoff_s
from qubix.kernel.errors import Unavailable


@dataclass
class PaperHead:
    number: int
    running: bool = True
    stopped: bool = False

    def alive(self) -> bool:
        return self.running

    def stop(self, grace_s: float = 5.0) -> int:
        self.running, self.stopped = False, True
        return 0


@dataclass
class PaperProcess:
    held: bool = False
    running: bool = True
    ready: bool = False
    starts: int = 0

    def start(self) -> None:
        self.running, self.ready = True, False
        self.starts += 1

    def stop(self, grace_s: float = 10.0) -> None:
        self.running = False

    def said_ready(self) -> bool:
        return self.ready

    def ended(self) -> bool:
        return not self.running


@dataclass
class World:
    """A keeper, what it keeps, and a clock that is set by hand."""

    now: float = 1000.0
    swept: int = 0
    heads: list[PaperHead] = field(default_factory=lambda: [PaperHead(0)])
    web: PaperProcess = field(default_factory=lambda: PaperProcess(running=False, ready=True))
    fabric: PaperProcess = field(default_factory=PaperProcess)

    def __post_init__(self) -> None:
        self.keeper = HeadKeeper(
            self.heads[0], self._launch, web=self.web, drivers=[self.fabric], sweep=self._sweep, say=lambda _: None, now=self.now
        )

    def _launch(self, ended: PaperHead) -> PaperHead:
        assert ended.stopped, "two heads on the same ports"
        self.heads.append(PaperHead(ended.number + 1))
        return self.heads[-1]

    def _sweep(self) -> None:
        self.swept += 1

    def look(self, after_s: float = 0.0) -> bool:
        self.now += after_s
        return self.keeper.look(self.now)

    def lose(self) -> None:
        """Its head is killed, and the next one is started as soon as it may be."""
        self.keeper.head.running = False
        self.look()
        self.look(BACKOFF_MAX_S)


def test_a_head_that_runs_is_left_alone() -> None:
    world = World()
    assert not any(world.look(100.0) for _ in range(5))
    assert (len(world.heads), world.web.starts, world.fabric.starts, world.swept) == (1, 0, 0, 0)


def test_another_head_takes_the_place_of_one_that_ended_with_all_that_lived_in_it() -> None:
    world = World()
    world.heads[0].running = False
    assert world.look()
    assert world.heads[0].stopped
    assert world.fabric.held
    assert not world.fabric.running
    assert world.swept == 1
    assert not world.look(backoff_s(1) - 0.01)
    assert world.look(0.02)
    assert (len(world.heads), world.web.starts, world.fabric.starts) == (2, 1, 1)
    assert not world.fabric.held
    assert not world.look(5.0)
    world.web.ready = True
    assert world.look()
    assert world.keeper.stage is Stage.UP
    assert not world.look(100.0)


def test_each_head_that_does_not_stay_is_followed_later_and_at_last_by_none() -> None:
    world = World()
    for failures in range(1, FAILURES_MAX + 1):
        world.keeper.head.running = False
        assert world.look()
        assert not world.look(backoff_s(failures) - 0.01)
        assert world.look(0.02)
    world.keeper.head.running = False
    with pytest.raises(Unavailable, match="did not stay"):
        world.look()
    assert all(head.stopped for head in world.heads)
    assert world.fabric.held


def test_a_head_that_stayed_up_has_its_failures_forgiven() -> None:
    world = World()
    for _ in range(3 * FAILURES_MAX):
        world.lose()
        world.web.ready = True
        world.look()
        world.look(STEADY_S + 1)
    assert world.keeper.stage is Stage.UP


def test_a_deployment_that_fails_is_tried_again_and_then_the_head_is_taken_for_broken() -> None:
    world = World()
    world.lose()
    for _ in range(DEPLOYS_MAX - 1):
        world.web.running = False
        assert world.look()
    assert world.web.starts == DEPLOYS_MAX
    assert len(world.heads) == 2
    world.web.running = False
    assert world.look()
    assert world.heads[1].stopped
    world.look(BACKOFF_MAX_S)
    assert len(world.heads) == 3


def test_a_web_layer_that_never_answers_costs_the_head_its_place() -> None:
    world = World()
    world.lose()
    assert not world.look(READY_TIMEOUT_S)
    assert world.look(0.1)
    assert world.heads[1].stopped


def test_a_head_that_dies_while_it_starts_is_followed_by_another() -> None:
    world = World()
    world.lose()
    world.lose()
    assert [head.stopped for head in world.heads] == [True, True, False]
    assert world.web.starts == 2
