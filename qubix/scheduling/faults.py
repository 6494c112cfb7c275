"""Whose fault an end was, and what follows: the closed policy. Pure. (What is paid: qubix.escrow.model.)

The agent says what it saw (`Exit`); the platform decides here, with what it alone knows: cancellation, the node's death,
how earlier attempts ended.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from qubix.agent.protocol import Exit
from qubix.jobs.model import AttemptStep, Fault

SIGKILL: Final = 9
SIGTERM: Final = 15
SHUTDOWN_SIGNALS: Final = frozenset({1, 2, SIGKILL, SIGTERM})
"""What a machine that goes down sends to its processes, jobs among them."""
DEATH_WINDOW_S: Final = 5.0
"""After such a signal, wait this long for the news that the node itself died."""

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
        killed_elsewhere, an earlier attempt of this job was killed on another node too; cut_short, it did
        not run for its whole limit, by the stricter of the two clocks that also meter it; web_away, the web layer is away, or was a
        moment ago: with the Ray head that carried it, the runners on all nodes end.
    """

    exit: Exit
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    node_died: bool = False
    cancel_requested: bool = False
    restore_failed: bool = False
    killed_elsewhere: bool = False
    cut_short: bool = False
    web_away: bool = False


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
    by_signal = ending.exit in (Exit.SIGNALLED, Exit.KILLED) and ending.signal in SHUTDOWN_SIGNALS
    return by_signal and not ending.cancel_requested and not ending.node_died


def judge(ending: Ending, *, retry_own_failures: bool = False) -> Verdict:
    """Whose fault the end was. Total over every Exit; an end by a signal is never success."""
    if ending.exit is Exit.EXITED and ending.exit_code == 0:
        return Verdict(AttemptStep.SUCCEED, Fault.NONE, "succeeded", "", False)
    if ending.cancel_requested:
        return Verdict(AttemptStep.CANCEL, Fault.NONE, "cancelled", "cancelled by its owner", False)
    absent = Fault.PLATFORM if ending.web_away else Fault.PROVIDER
    if ending.node_died:
        return Verdict(AttemptStep.LOSE, absent, "node_lost", "the node died while the job ran", True)
    if ending.exit is Exit.SANDBOX_FAILED:
        return Verdict(AttemptStep.FAIL, absent, "sandbox_failed", ending.detail or "the sandbox did not start", True)
    if ending.exit is Exit.INPUT_FAILED:
        return Verdict(AttemptStep.FAIL, Fault.PLATFORM, "input_failed", ending.detail or "an input could not be fetched", True)
    if ending.exit is Exit.TIME_LIMIT and ending.cut_short:
        return Verdict(AttemptStep.FAIL, Fault.PROVIDER, "stopped_by_node", "the node ended it before its time was over", True)
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
    if ending.exit is Exit.KILLED and not ending.killed_elsewhere:
        return Verdict(AttemptStep.FAIL, Fault.PROVIDER, "killed", "the node killed the job together with its sandbox", True)
    if ending.exit in (Exit.SIGNALLED, Exit.KILLED):
        # A job can send itself any signal: were one of them the provider's fault, its work would be free.
        return Verdict(*own, "signal", ending.detail or f"ended by signal {ending.signal}", retry_own_failures)
    return Verdict(*own, "exit_code", ending.detail or f"exit code {ending.exit_code}", retry_own_failures)
