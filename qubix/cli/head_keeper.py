"""Ray's head, kept up: when it ends, another takes its place on the same ports, and what lived in it is put there again.

A head keeps its state in memory alone, so the new one knows nobody: the web layer is deployed anew, the fabric daemon, a driver of the
old one, is started anew, and the provider machines notice by themselves that they are strangers and join again (qubix.fabric.node).
PostgreSQL, controller, treasury and signer run on: they hold no Ray handle.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from qubix.cli.supervise import STEADY_S, backoff_s
from qubix.kernel.errors import Unavailable

READY_TIMEOUT_S: Final = 120.0
"""From the start of a head until the web layer in it answers; 20 to 40 s are usual."""
DEPLOYS_MAX: Final = 3
"""So many failed deployments in a row, and the head itself is taken for broken."""
FAILURES_MAX: Final = 10
"""So many heads in a row that did not come up or did not stay, with two and a half minutes of back-off: then a person must look."""


class Head(Protocol):
    """What is asked of a head; `qubix.fabric.head.Head` is one."""

    def alive(self) -> bool:
        """Whether it runs."""
        ...

    def stop(self, grace_s: float = ...) -> int:
        """End all of its processes."""
        ...


class Dependent(Protocol):
    """A process that waits by itself until a head answers; `qubix.cli.supervise.Child` is one."""

    held: bool

    def start(self) -> None:
        """Start it; do not wait."""
        ...

    def stop(self, grace_s: float = ...) -> None:
        """End it and what is below it."""
        ...

    def said_ready(self) -> bool:
        """Whether it has done what it is for."""
        ...

    def ended(self) -> bool:
        """Whether it runs no more."""
        ...


class Stage(enum.StrEnum):
    """Where the head is."""

    UP = "up"
    WAITING = "waiting"
    STARTING = "starting"


H = TypeVar("H", bound=Head)


class HeadKeeper(Generic[H]):
    """Looks after one head; no call here waits for anything but the end of what it kills."""

    def __init__(
        self,
        head: H,
        launch: Callable[[H], H],
        *,
        web: Dependent,
        drivers: Sequence[Dependent],
        sweep: Callable[[], None],
        say: Callable[[str], None],
        now: float,
    ) -> None:
        """Args: head, running; launch, starts one in the place of an ended one and does not wait; web, the process that deploys the web layer
        and then ends; drivers, processes that cling to the old head and are started anew; sweep, ends what a dead head left; now, by
        the clock of `look`.
        """
        self.head = head
        self.stage = Stage.UP
        self._launch, self._web, self._drivers = launch, web, drivers
        self._sweep, self._say = sweep, say
        self._failures = self._deploys = 0
        self._since, self._due_at = now, 0.0

    def look(self, now: float) -> bool:
        """One look, one step at most. Args: now, monotonic seconds. Returns: whether processes began or ended.

        Raises: Unavailable after FAILURES_MAX heads in a row.
        """
        if self.stage is Stage.WAITING:
            return now >= self._due_at and self._start(now)
        if not self.head.alive():
            self._lose(now, "the Ray head has ended")
            return True
        return self.stage is Stage.STARTING and self._await_web(now)

    def _lose(self, now: float, what: str) -> None:
        steady = self.stage is Stage.UP and now - self._since > STEADY_S
        self._failures = 1 if steady else self._failures + 1
        for driver in self._drivers:
            driver.held = True
        for dependent in (self._web, *self._drivers):
            dependent.stop(0.0)
        self.head.stop(0.0)
        self._sweep()
        if self._failures > FAILURES_MAX:
            raise Unavailable(
                f"{what}, and {FAILURES_MAX} others before it did not stay",
                next_step="read head.log in the runtime folder and web.log in the data folder; then qubix up again",
            )
        self._say(f"{what}; it is started again")
        self._due_at = now + backoff_s(self._failures)
        self.stage, self._since = Stage.WAITING, now

    def _start(self, now: float) -> bool:
        """The head and all that depends on it at once: they load while it comes up, and wait for it."""
        self.head = self._launch(self.head)
        self.stage, self._since = Stage.STARTING, now
        self._deploys = 1
        self._web.start()
        for driver in self._drivers:
            driver.start()
            driver.held = False
        return True

    def _await_web(self, now: float) -> bool:
        if self._web.said_ready():
            self._say(f"the Ray head is back, and the web layer in it, after {now - self._since:.0f} s")
            self.stage, self._since = Stage.UP, now
        elif now - self._since > READY_TIMEOUT_S:
            self._lose(now, "the web layer did not come up in the new Ray head")
        elif not self._web.ended():
            return False
        elif self._deploys == DEPLOYS_MAX:
            self._lose(now, "the web layer could not be deployed")
        else:
            self._deploys += 1
            self._web.start()
        return True
