"""Whose fault an end was, what follows, and how long is paid: the closed policy. Pure.

The agent says what it saw (`Exit`); the platform decides here, with what it alone knows: cancellation, the node's death,
how earlier attempts ended.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Final

from qubix.agent.protocol import Exit
from qubix.jobs.model import AttemptStep, Fault

SIGKILL: Final = 9
SIGTERM: Final = 15
UNEXPLAINED_SIGNALS: Final = frozenset({1, 2, SIGKILL, SIGTERM})
"""Signals that something outside the job usually sent; a crash of its own is SIGSEGV, SIGABRT, SIGFPE and their like."""
DEATH_WINDOW_S: Final = 5.0
"""After an unexplained signal, wait this long for the news that the node itself died."""

_OWN_LIMITS: Final = {
    Exit.TIME_LIMIT: ("time_limit", "the run reached the time or the money that the job allows"),
    Exit.OUT_OF_MEMORY: ("out_of_memory", "the job used more memory than its limit"),
    Exit.DISK_LIMIT: ("disk_limit", "the job wrote more than its disk limit"),
    Exit.OUTPUT_FLOOD: ("output_flood", "the job printed more than its output limit"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """What is known when an attempt has reported its end.

    Args: exit, exit_code, signal, detail as the agent reported; node_died, the fabric declared the node dead, or its
        socket closed, within DEATH_WINDOW_S of the report; cancel_requested; restore_failed, as reported;
        same_signal_elsewhere, an earlier attempt of this job ended by this very signal on another node.
    """

    exit: Exit
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    node_died: bool = False
    cancel_requested: bool = False
    restore_failed: bool = False
    same_signal_elsewhere: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ends. Args: retry, whether its fault allows another attempt (the tries left are counted elsewhere)."""

    step: AttemptStep
    fault: Fault
    reason: str
    detail: str
    retry: bool


def waits_for_death(ending: Ending) -> bool:
    """Whether to wait DEATH_WINDOW_S before judging: the signal may be the first sign of a dying node."""
    return ending.exit is Exit.SIGNALLED and ending.signal in UNEXPLAINED_SIGNALS and not ending.cancel_requested and not ending.node_died


def judge(ending: Ending, *, retry_own_failures: bool = False) -> Verdict:
    """Whose fault the end was. Total over every Exit; an end by a signal is never success."""
    if ending.exit is Exit.EXITED and ending.exit_code == 0:
        return Verdict(AttemptStep.SUCCEED, Fault.NONE, "succeeded", "", False)
    if ending.cancel_requested:
        return Verdict(AttemptStep.CANCEL, Fault.NONE, "cancelled", "cancelled by its owner", False)
    if ending.node_died:
        return Verdict(AttemptStep.LOSE, Fault.PROVIDER, "node_lost", "the node died while the job ran", True)
    if ending.exit is Exit.SANDBOX_FAILED:
        return Verdict(AttemptStep.FAIL, Fault.PROVIDER, "sandbox_failed", ending.detail or "the sandbox did not start", True)
    if ending.exit is Exit.INPUT_FAILED:
        return Verdict(AttemptStep.FAIL, Fault.PLATFORM, "input_failed", ending.detail or "an input could not be fetched", True)
    if ending.exit is Exit.STOPPED:
        return Verdict(AttemptStep.FAIL, Fault.PROVIDER, "stopped_by_node", ending.detail or "the node stopped it by itself", True)
    if ending.restore_failed:
        return Verdict(AttemptStep.FAIL, Fault.PLATFORM, "restore_failed", ending.detail or "its checkpoint could not be restored", True)
    return _own_or_unexplained(ending, retry_own_failures)


def _own_or_unexplained(ending: Ending, retry_own_failures: bool) -> Verdict:
    own = (AttemptStep.FAIL, Fault.CONSUMER)
    if ending.exit in _OWN_LIMITS:
        reason, detail = _OWN_LIMITS[ending.exit]
        return Verdict(*own, reason, ending.detail or detail, retry_own_failures and ending.exit is not Exit.TIME_LIMIT)
    if ending.exit is Exit.SIGNALLED:
        detail = ending.detail or f"ended by signal {ending.signal}"
        if ending.signal in UNEXPLAINED_SIGNALS and not ending.same_signal_elsewhere:
            return Verdict(AttemptStep.FAIL, Fault.PROVIDER, "killed", f"{detail}, which neither the job nor its limits explain", True)
        return Verdict(*own, "signal", detail, retry_own_failures)
    return Verdict(*own, "exit_code", ending.detail or f"exit code {ending.exit_code}", retry_own_failures)


def metered_ms(
    *,
    running_at: dt.datetime | None,
    ended_at: dt.datetime,
    limit_ms: int,
    agent_ms: int | None = None,
    cancel_requested_at: dt.datetime | None = None,
) -> int:
    """Milliseconds that count: from `running` to the end by the database's clock, never more than the agent's own figure,
    than the limit, or than what ran before the cancellation. 0 when it never ran.

    Args: ended_at, when the terminal frame came; for a LOST attempt its last renewal.
    """
    if running_at is None:
        return 0
    end = ended_at if cancel_requested_at is None else min(ended_at, cancel_requested_at)
    by_database = max(0, (end - running_at) // dt.timedelta(milliseconds=1))
    return max(0, min(by_database, limit_ms, by_database if agent_ms is None else agent_ms))


def preserved_ms(*, ran_ms: int | None, whole_ms: int) -> int:
    """What a provider's or platform's fault leaves payable: up to the last checkpoint whose bytes are stored and verified.

    Args: ran_ms, of that checkpoint (None: there is none); whole_ms, the attempt's metered time.
    """
    return 0 if ran_ms is None else max(0, min(ran_ms, whole_ms))
