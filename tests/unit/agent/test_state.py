"""The agent's mind, rule by rule, and then under frames that come in any order, twice, late or never."""

from __future__ import annotations

from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qubix.agent.protocol import AttemptSpec, Desired, DesiredAttempt, Grant, Stop
from qubix.agent.state import Action, Check, Forget, Kill, NodeState, Phase, SendAccept, SendDecline, SendStatus, Start

SESSION, OTHER = UUID(int=1), UUID(int=2)
SPEC = AttemptSpec(kind="script")


def attempt(number: int, *devices: str, fence: int = 1) -> DesiredAttempt:
    return DesiredAttempt(id=UUID(int=number), fence=fence, spec=SPEC, devices=devices or ("g0",), limit_ms=60_000)


def desired(generation: int, *attempts: DesiredAttempt, session: UUID = SESSION) -> Desired:
    return Desired(session=session, generation=generation, attempts=attempts)


def grant(number: int, fence: int = 1) -> Grant:
    return Grant(attempt=UUID(int=number), fence=fence, limit_ms=60_000)


def stop(number: int, fence: int = 1) -> Stop:
    return Stop(attempt=UUID(int=number), fence=fence, reason="stale")


def opened() -> NodeState:
    state = NodeState(now=0.0)
    state.opened(SESSION, 0.0)
    return state


def running(number: int = 1, *devices: str) -> NodeState:
    state = opened()
    one = attempt(number, *devices)
    state.desired(desired(1, one), 0.0)
    state.checked(one.id, one.fence, None, 0.0)
    state.grant(grant(number), 1.0)
    return state


def test_an_attempt_starts_after_check_accept_and_grant() -> None:
    state, one = opened(), attempt(1)
    assert state.desired(desired(1, one), 0.0) == [Check(one)]
    assert state.checked(one.id, 1, None, 0.0) == [SendAccept(one.id, 1)]
    assert state.grant(grant(1), 1.0) == [Start(one, 60_000)]


def test_a_grant_that_nobody_asked_for_starts_nothing() -> None:
    state = opened()
    assert state.grant(grant(1), 0.0) == []
    state.desired(desired(1, attempt(1)), 0.0)
    assert state.grant(grant(1), 0.0) == []


def test_a_grant_later_than_the_ttl_starts_nothing_and_nothing_is_asked_again() -> None:
    state, one = opened(), attempt(1)
    state.desired(desired(1, one), 0.0)
    state.checked(one.id, 1, None, 0.0)
    assert state.grant(grant(1), 20.5) == []
    assert state.desired(desired(2, one), 21.0) == []


def test_a_grant_of_an_earlier_connection_starts_nothing() -> None:
    state, one = opened(), attempt(1)
    state.desired(desired(1, one), 0.0)
    state.checked(one.id, 1, None, 0.0)
    state.closed()
    state.opened(OTHER, 1.0)
    assert state.grant(grant(1), 1.0) == []
    assert state.desired(desired(1, one, session=OTHER), 1.0) == [Check(one)]


def test_a_repeated_grant_starts_nothing_more() -> None:
    assert running().grant(grant(1), 2.0) == []


def test_a_refused_check_is_declined_and_not_tried_again() -> None:
    state, one = opened(), attempt(1)
    state.desired(desired(1, one), 0.0)
    assert state.checked(one.id, 1, "no_sandbox", 0.0) == [SendDecline(one.id, 1, "no_sandbox")]
    assert state.desired(desired(1, one), 1.0) == []


def test_what_is_desired_no_more_is_killed_and_still_reported() -> None:
    assert running().desired(desired(2), 2.0) == [Kill(UUID(int=1), 1, "not desired")]


def test_a_stop_kills_and_forgets() -> None:
    assert running().stop(stop(1), 2.0) == [Kill(UUID(int=1), 1, "stale"), Forget(UUID(int=1), 1)]


def test_an_older_generation_and_another_session_are_ignored() -> None:
    state = running()
    state.desired(desired(5, attempt(1)), 2.0)
    assert state.desired(desired(4), 3.0) == []
    assert state.desired(desired(9, session=OTHER), 3.0) == []
    assert state.phase(UUID(int=1), 1) is Phase.STARTED


def test_a_second_attempt_on_a_device_in_use_is_declined() -> None:
    state = running(1, "g0")
    assert state.desired(desired(2, attempt(1, "g0"), attempt(2, "g0", "g1")), 2.0) == [SendDecline(UUID(int=2), 1, "device_busy")]


def test_an_attempt_waits_for_a_device_whose_attempt_is_dying() -> None:
    state, second = running(1, "g0"), attempt(2, "g0")
    assert state.desired(desired(2, second), 2.0) == [Kill(UUID(int=1), 1, "not desired")]
    assert state.ended(UUID(int=1), 1, 3.0) == [Check(second)]


def test_a_status_is_due_at_once_after_a_change_then_every_5_s_while_something_runs() -> None:
    state = running()
    first = state.tick(1.0)
    assert [type(a) for a in first] == [SendStatus]
    assert state.tick(5.9) == []
    assert [a.seq for a in state.tick(6.0) if isinstance(a, SendStatus)] == [2]


def test_an_idle_node_reports_every_30_s() -> None:
    state = opened()
    state.desired(desired(0), 0.0)
    state.tick(0.0)
    assert state.tick(29.0) == []
    assert len(state.tick(30.0)) == 1


def test_a_dying_attempt_is_alive_until_its_devices_are_free() -> None:
    state = running()
    state.desired(desired(2), 2.0)
    assert [a.id for a in state.alive()] == [UUID(int=1)]
    state.ended(UUID(int=1), 1, 3.0)
    assert state.alive() == ()


def test_a_short_outage_kills_nothing_and_a_long_one_everything() -> None:
    state = running()
    state.closed()
    assert state.tick(100.0) == []
    assert state.tick(125.0) == [Kill(UUID(int=1), 1, "no contact with the platform for 120 s")]


def test_what_an_earlier_life_started_is_never_started_again() -> None:
    state = opened()
    state.remember(UUID(int=1), 1)
    assert state.desired(desired(1, attempt(1)), 0.0) == []


class AnyOrder(RuleBasedStateMachine):
    """A platform whose frames are lost, repeated and late; the rules that must hold whatever it does."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.state = NodeState(now=0.0)
        self.sessions = 0
        self.attempts = {
            n: attempt(n, *devices) for n, devices in enumerate([("g0",), ("g1",), ("g0", "g1"), ("g1", "g2"), ("g2",)], start=10)
        }
        self.in_flight: list[tuple[int, Desired | Grant | Stop]] = []
        self.accepted_at: dict[UUID, float] = {}
        self.asked: set[UUID] = set()
        self.started: list[UUID] = []
        self.alive: dict[UUID, DesiredAttempt] = {}
        self.stopped: set[UUID] = set()
        self.checks: list[UUID] = []

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Check):
                self.checks.append(action.attempt.id)
            elif isinstance(action, SendAccept):
                self.asked.add(action.attempt)
                self.accepted_at[action.attempt] = self.now
            elif isinstance(action, Start):
                one = action.attempt
                assert one.id in self.asked, "started without an accept"
                assert self.now - self.accepted_at[one.id] <= self.state.lease_ttl_s, "started on a stale grant"
                assert one.id not in self.started, "started twice"
                assert one.id not in self.stopped, "started after its stop"
                taken = {d for other in self.alive.values() for d in other.devices}
                assert not taken & set(one.devices), "two attempts on one device"
                self.started.append(one.id)
                self.alive[one.id] = one
            elif isinstance(action, SendStatus):
                assert {a.id for a in action.alive} >= set(self.alive), "a living attempt is not reported"

    @rule()
    def connect(self) -> None:
        self.sessions += 1
        # A platform answers on the connection on which it was asked: what an earlier one carried is gone with it.
        self.in_flight = [(s, f) for s, f in self.in_flight if isinstance(f, Desired)]
        self.asked.clear()
        self.take(self.state.opened(UUID(int=self.sessions), self.now))

    @rule()
    def disconnect(self) -> None:
        self.in_flight = [(s, f) for s, f in self.in_flight if isinstance(f, Desired)]
        self.asked.clear()
        self.take(self.state.closed())

    @rule(generation=st.integers(0, 6), numbers=st.sets(st.integers(10, 14)), session=st.integers(1, 3))
    def platform_desires(self, generation: int, numbers: set[int], session: int) -> None:
        frame = Desired(session=UUID(int=session), generation=generation, attempts=tuple(self.attempts[n] for n in sorted(numbers)))
        self.in_flight.append((session, frame))

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 100))
    def platform_grants(self, pick: int) -> None:
        one = sorted(self.asked)[pick % len(self.asked)]
        self.in_flight.append((self.sessions, Grant(attempt=one, fence=1, limit_ms=1000)))

    @rule(number=st.integers(10, 14))
    def platform_stops(self, number: int) -> None:
        self.in_flight.append((self.sessions, Stop(attempt=UUID(int=number), fence=1, reason="stale")))

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 1000), keep=st.booleans())
    def deliver_any(self, pick: int, keep: bool) -> None:
        index = pick % len(self.in_flight)
        _, frame = self.in_flight[index]
        if not keep:
            del self.in_flight[index]
        if isinstance(frame, Desired):
            self.take(self.state.desired(frame, self.now))
        elif isinstance(frame, Grant):
            self.take(self.state.grant(frame, self.now))
        else:
            self.stopped.add(frame.attempt)
            self.take(self.state.stop(frame, self.now))

    @precondition(lambda self: self.checks)
    @rule(pick=st.integers(0, 100), fine=st.booleans())
    def check_answers(self, pick: int, fine: bool) -> None:
        one = self.checks.pop(pick % len(self.checks))
        self.take(self.state.checked(one, 1, None if fine else "device_held", self.now))

    @precondition(lambda self: self.alive)
    @rule(pick=st.integers(0, 100))
    def attempt_ends(self, pick: int) -> None:
        one = sorted(self.alive)[pick % len(self.alive)]
        del self.alive[one]
        self.take(self.state.ended(one, 1, self.now))

    @rule(seconds=st.sampled_from([0.1, 3.0, 15.0, 30.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.state.tick(self.now))

    @invariant()
    def everything_alive_is_reported(self) -> None:
        if hasattr(self, "state"):
            assert {a.id for a in self.state.alive()} >= set(self.alive)


AnyOrder.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
