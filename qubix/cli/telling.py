"""A job's fate in sentences: why it waits, what became of each attempt, how far it is. Text of jobs and nodes comes out bare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from qubix.cli.output import bare
from qubix.cli.payment import news_of

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
ENDS: Final = {"LOST": "was lost", "FAILED": "failed", "CANCELLED": "was cancelled", "SUCCEEDED": "succeeded"}


def progress_of(job: Mapping[str, Any]) -> int:
    """Per cent, rounded down: 100 is for a job that is done.

    Of the newest attempt where attempts are known, as a job's own figure is the highest that any of them reached; 0 while it waits for the next.
    """
    if job["state"] == "COMPLETED":
        return 100
    attempts = job.get("attempts")
    if not attempts:
        return int(job.get("progress") or 0)
    return 0 if job["state"] == "PENDING" else int(attempts[-1].get("progress") or 0)


def one_line(text: object) -> str:
    """Text from elsewhere, bare and on one line."""
    return " ".join(bare(str(text)).split())


def why_waiting(unplaceable: Mapping[str, Any]) -> str:
    """Why no machine runs a job or a plan now, and the smallest change that would help."""
    relaxation = unplaceable.get("relaxation") or {}
    hint = relaxation.get("message") or ("" if relaxation else unplaceable.get("next_step") or "")
    return one_line(f"{unplaceable.get('message') or 'Nothing fits now.'} {hint}")


def began(attempt: Mapping[str, Any]) -> str:
    """Where an attempt runs, and from where it goes on."""
    start = ""
    if attempt.get("resumed_from") is not None:
        start = f" resumes from checkpoint {attempt['resumed_from']}"
    elif attempt["number"] > 1:
        start = " starts from the beginning: no checkpoint was stored"
    return f"attempt {attempt['number']} on node {one_line(attempt['node_name'])}{start}"


def ended(attempt: Mapping[str, Any]) -> str:
    """How an attempt ended, and why."""
    why = one_line(attempt.get("reason_detail") or "")
    code = one_line(attempt.get("reason") or "")
    reason = f"{why} ({code})" if why and code else why or code or "no reason is known"
    return f"attempt {attempt['number']} on node {one_line(attempt['node_name'])} {ENDS[attempt['state']]}: {reason}"


class Narrator:
    """Tells what becomes of a job's payment and attempts, each thing once and between the log lines where it belongs.

    Args: say, prints a sentence; waits, whether to tell why the job waits, too.
    """

    def __init__(self, say: Callable[[str], None], *, waits: bool = True) -> None:
        self._say = say
        self._waits = waits
        self._told: set[tuple[int, str]] = set()
        self._due: list[tuple[int, str, bool]] = []
        self._waiting = ""
        self._paid: tuple[object, ...] | None = None
        self._heading = 0

    def look(self, job: Mapping[str, Any]) -> None:
        """See the job as it is now; what is new is told before the next line that comes after it, or by `flush`."""
        attempts = job["attempts"]
        self._look_at_payment(job.get("payment"))
        for attempt in attempts:
            number = attempt["number"]
            self._once(number, "began", number, began(attempt))
            last_word = job["state"] in FINAL and attempt is attempts[-1]  # the job's own end says it
            if attempt["state"] in ENDS and attempt["state"] != "SUCCEEDED" and not last_word:
                self._once(number, "ended", number + 1, ended(attempt))
        waiting = why_waiting(job["unplaceable"]) if job["state"] == "PENDING" and job.get("unplaceable") else ""
        if waiting and waiting != self._waiting and self._waits:
            self._due.append((len(attempts) + 1, f"waiting: {waiting}", False))
        self._waiting = waiting

    def _look_at_payment(self, payment: Mapping[str, Any] | None) -> None:
        """Told again when more has come or is proved; the passing of time alone is no news."""
        if payment is None or payment["state"] == "over":
            return
        now = (payment["state"], payment["confirmations"], payment["received"], payment["missing"], payment["delayed"])
        if now != self._paid:
            paid = payment["state"] == "paid"
            counted = f"{payment['confirmations']}/{payment['confirmations_needed']}"
            funded = f"payment {counted}: the job is funded" if payment["tx_ids"] else "the job is funded from the wallet"
            if not paid or self._paid is not None:
                self._due.append((0, funded if paid else news_of(payment), False))
            self._paid = now

    def before(self, line: Mapping[str, Any]) -> None:
        """A log line is about to be shown."""
        number = line["attempt_number"]
        self._tell([item for item in self._due if item[0] <= number])
        if number != self._heading:
            self._say(f"attempt {number}, continued")
            self._heading = number

    def flush(self) -> None:
        """Tell the rest."""
        self._tell(list(self._due))

    def _once(self, number: int, what: str, place: int, text: str) -> None:
        if (number, what) not in self._told:
            self._told.add((number, what))
            self._due.append((place, text, what == "began"))

    def _tell(self, due: list[tuple[int, str, bool]]) -> None:
        for item in due:
            self._due.remove(item)
            place, text, heading = item
            self._say(text)
            if heading:
                self._heading = place
