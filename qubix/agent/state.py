"""What an agent does, as pure logic: frames and facts go in, actions come out; no socket, no clock, no process.

The rules (architecture, 4b), which the property tests hammer with lost, repeated and late frames:
an attempt starts only after a check, an accept and a grant that came within the lease's TTL; no device ever has two
attempts; what was started, declined or stopped once is never started again; what the newest desired state of the
current session does not list is killed; statuses are due on time and at once after a change.

Self-fencing: an agent that the platform has not answered for `fence_after_s` kills what runs. Until then it keeps
running through an outage, for up to that point the lease may still be good: the sweeper adds a database's absence to every
lease, and a late renewal counts until LOST is committed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from uuid import UUID

from qubix.agent.protocol import HEARTBEAT_S, LEASE_TTL_S, RENEWAL_S, AliveAttempt, Desired, DesiredAttempt, Grant, Stop

FENCE_AFTER_S = 6 * LEASE_TTL_S
REMEMBERED_MAX = 10_000

Key = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class Check:
    """Find out whether the attempt could start now; answer with `NodeState.checked`."""

    attempt: DesiredAttempt


@dataclass(frozen=True, slots=True)
class SendAccept:
    """Ask the platform for the grant."""

    attempt: UUID
    fence: int


@dataclass(frozen=True, slots=True)
class SendDecline:
    """Tell the platform that the attempt cannot start here."""

    attempt: UUID
    fence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start it; answer with `NodeState.ended` when its last process is gone and its devices are free."""

    attempt: DesiredAttempt
    limit_ms: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End its processes; its `finished` is still reported unless a Forget follows."""

    attempt: UUID
    fence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Send nothing more of it and drop what is spooled."""

    attempt: UUID
    fence: int


@dataclass(frozen=True, slots=True)
class SendStatus:
    """A heartbeat is due."""

    session: UUID
    seq: int
    generation: int
    alive: tuple[AliveAttempt, ...]


Action = Check | SendAccept | SendDecline | Start | Kill | Forget | SendStatus


class Phase(enum.Enum):
    """Where an attempt stands on this node."""

    WAITING = "waiting"  # for a device that a dying attempt still holds
    CHECKING = "checking"
    ACCEPTING = "accepting"
    STARTED = "started"
    STOPPING = "stopping"


@dataclass(slots=True)
class Slot:
    """One attempt on this node."""

    attempt: DesiredAttempt
    phase: Phase
    since: float

    @property
    def holds_devices(self) -> bool:
        return self.phase is not Phase.WAITING


class NodeState:
    """The agent's mind. Every method takes the monotonic time in seconds where it matters."""

    def __init__(
        self,
        *,
        now: float = 0.0,
        renewal_s: float = RENEWAL_S,
        heartbeat_s: float = HEARTBEAT_S,
        lease_ttl_s: float = LEASE_TTL_S,
        fence_after_s: float = FENCE_AFTER_S,
    ) -> None:
        self.renewal_s, self.heartbeat_s = renewal_s, heartbeat_s
        self.lease_ttl_s, self.fence_after_s = lease_ttl_s, fence_after_s
        self.session: UUID | None = None
        self.generation = -1
        self._seq = 0
        self._slots: dict[Key, Slot] = {}
        self._over: dict[Key, None] = {}
        self._reporting: frozenset[Key] = frozenset()
        self._status_due = False
        self._status_at = now
        self._heard_at = now

    # -- questions ----------------------------------------------------------------------------------------------------

    def alive(self) -> tuple[AliveAttempt, ...]:
        """The attempts that have, or may get at any moment, a process or a device here, and those whose end is still being reported."""
        here = [key for key, slot in self._slots.items() if slot.phase not in (Phase.WAITING, Phase.CHECKING)]
        return tuple(AliveAttempt(id=i, fence=f) for i, f in [*here, *sorted(self._reporting - set(here))])

    def busy(self) -> bool:
        """Whether something runs, is about to, or is still being reported."""
        return bool(self._slots or self._reporting)

    def phase(self, attempt: UUID, fence: int) -> Phase | None:
        """Where an attempt stands; None: not here."""
        slot = self._slots.get((attempt, fence))
        return slot.phase if slot else None

    def reporting(self, attempts: frozenset[Key]) -> None:
        """The attempts that have ended here and whose results are on their way: their leases are renewed until all has arrived."""
        self._status_due = self._status_due or attempts != self._reporting
        self._reporting = attempts

    def remember(self, attempt: UUID, fence: int) -> None:
        """An attempt that an earlier life of this agent started: it is over."""
        self._remember((attempt, fence))

    # -- the session --------------------------------------------------------------------------------------------------

    def opened(self, session: UUID, now: float) -> list[Action]:
        """A session is open; what was asked for in an earlier one is asked for again when it is desired again."""
        self._drop_unstarted()
        self.session, self.generation, self._seq = session, -1, 0
        self._heard_at = now
        return []

    def closed(self) -> list[Action]:
        """The connection is gone. What runs goes on running; nothing new may start."""
        self.session = None
        self._drop_unstarted()
        return []

    def heard(self, now: float) -> None:
        """Any frame of the current session came: the platform knows of this node."""
        self._heard_at = now

    def _drop_unstarted(self) -> None:
        # A grant belongs to the connection on which its accept went out; without it, neither counts.
        self._slots = {k: s for k, s in self._slots.items() if s.phase in (Phase.STARTED, Phase.STOPPING)}

    # -- frames -------------------------------------------------------------------------------------------------------

    def desired(self, frame: Desired, now: float) -> list[Action]:
        """The desired state of the node: kill what it does not list, look at what is new."""
        if frame.session != self.session or frame.generation < self.generation:
            return []
        self._heard_at = now
        if frame.generation > self.generation:
            self.generation, self._status_due = frame.generation, True
        listed = {(a.id, a.fence): a for a in frame.attempts}
        actions: list[Action] = []
        for key in [k for k in self._slots if k not in listed]:
            actions += self._end(key, "not desired")
        for key, attempt in listed.items():
            if key not in self._slots and key not in self._over:
                self._slots[key] = Slot(attempt, Phase.WAITING, now)
        return actions + self._advance(now)

    def grant(self, frame: Grant, now: float) -> list[Action]:
        """The platform lets it start: good once, and only within the TTL of its accept."""
        self._heard_at = now
        slot = self._slots.get((frame.attempt, frame.fence))
        if slot is None or slot.phase is not Phase.ACCEPTING:
            return []
        if now - slot.since > self.lease_ttl_s:
            return self._discard((frame.attempt, frame.fence), now)
        slot.phase, slot.since = Phase.STARTED, now
        self._remember((frame.attempt, frame.fence))
        return [Start(slot.attempt, frame.limit_ms)]

    def stop(self, frame: Stop, now: float) -> list[Action]:
        """The attempt is over for the platform."""
        self._heard_at = now
        key = (frame.attempt, frame.fence)
        ending = self._end(key, frame.reason) if key in self._slots else []
        self._remember(key)
        return [*ending, Forget(*key), *self._advance(now)]

    # -- facts --------------------------------------------------------------------------------------------------------

    def checked(self, attempt: UUID, fence: int, refusal: str | None, now: float) -> list[Action]:
        """The answer to a Check: None if it can start here, else why not."""
        key = (attempt, fence)
        slot = self._slots.get(key)
        if slot is None or slot.phase is not Phase.CHECKING:
            return []
        if refusal is not None:
            return [SendDecline(attempt, fence, refusal), *self._discard(key, now)]
        slot.phase, slot.since = Phase.ACCEPTING, now
        return [SendAccept(attempt, fence)]

    def ended(self, attempt: UUID, fence: int, now: float) -> list[Action]:
        """A started attempt's last process is gone and its devices are free."""
        slot = self._slots.get((attempt, fence))
        if slot is None or slot.phase not in (Phase.STARTED, Phase.STOPPING):
            return []
        self._status_due = True
        return self._discard((attempt, fence), now)

    def tick(self, now: float) -> list[Action]:
        """What time alone demands."""
        actions: list[Action] = []
        for key, slot in list(self._slots.items()):
            if slot.phase is Phase.ACCEPTING and now - slot.since > self.lease_ttl_s:
                actions += self._discard(key, now)
            elif slot.phase is Phase.STARTED and now - self._heard_at > self.fence_after_s:
                actions += self._end(key, f"no contact with the platform for {self.fence_after_s:.0f} s")
        interval = self.renewal_s if self.busy() else self.heartbeat_s
        if self.session is not None and (self._status_due or now - self._status_at >= interval):
            self._seq += 1
            self._status_due, self._status_at = False, now
            actions.append(SendStatus(self.session, self._seq, self.generation, self.alive()))
        return actions

    # -- inside -------------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> list[Action]:
        """Let waiting attempts on to devices that nobody has; refuse them those that another live attempt has."""
        actions: list[Action] = []
        for key, slot in list(self._slots.items()):
            if slot.phase is not Phase.WAITING:
                continue
            rivals = [s for s in self._slots.values() if s.holds_devices and set(s.attempt.devices) & set(slot.attempt.devices)]
            if not rivals:
                slot.phase = Phase.CHECKING
                actions.append(Check(slot.attempt))
            elif any(rival.phase is not Phase.STOPPING for rival in rivals):
                del self._slots[key]
                self._remember(key)
                actions.append(SendDecline(*key, "device_busy"))
        return actions

    def _end(self, key: Key, reason: str) -> list[Action]:
        slot = self._slots[key]
        if slot.phase is Phase.STARTED:
            slot.phase = Phase.STOPPING
            self._status_due = True
            return [Kill(*key, reason)]
        if slot.phase is not Phase.STOPPING:
            del self._slots[key]
            self._remember(key)
        return []

    def _discard(self, key: Key, now: float) -> list[Action]:
        self._slots.pop(key, None)
        self._remember(key)
        return self._advance(now)

    def _remember(self, key: Key) -> None:
        self._over[key] = None
        while len(self._over) > REMEMBERED_MAX:
            del self._over[next(iter(self._over))]
