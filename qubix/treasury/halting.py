"""Why payouts stop, and when they go on: one row per subject, whose figures name every reason that still holds.

R1 and R2 end by themselves once the figures agree again; what needs a person ends only by `qubix treasury resume`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qubix import observability
from qubix.treasury.watch_store import Halt, WatchStore

EVERYBODY: Final = "*"
REASONS_MAX: Final = 20
"""Of one rule, so many reasons are kept for a person to read."""

log = observability.logger("treasury")


async def stop_for_person(rows: WatchStore, rule: str, reason: str, **figures: Any) -> None:
    """Stop all payouts until a person has looked."""
    halt = await _halt(rows, EVERYBODY)
    known = dict(halt.figures) if halt else {}
    reasons = [one for one in known.get(rule, []) if one["reason"] != reason]
    known[rule] = [*reasons, {"reason": reason, **figures}][-REASONS_MAX:]
    await rows.halt(EVERYBODY, _rules(known), known, needs_person=True)
    log.error("payouts are stopped", subject=EVERYBODY, rule=rule, reason=reason, **figures)


async def compare(rows: WatchStore, subject: str, rule: str, judged: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Stop payouts for what does not agree, and let them go on when nothing is left that does not.

    Args: judged, what was judged now, by name: figures that do not agree, or None where they do.
    """
    halt = await _halt(rows, subject)
    known = dict(halt.figures) if halt else {}
    before = dict(known.get(rule, {}))
    wrong = {name: dict(figures) for name, figures in judged.items() if figures is not None}
    after = {name: figures for name, figures in before.items() if name not in judged} | wrong
    if after == before:
        return
    known = {**{name: figures for name, figures in known.items() if name != rule}, **({rule: after} if after else {})}
    if known or (halt and halt.needs_person):
        await rows.halt(subject, _rules(known) or (halt.rule if halt else rule), known, needs_person=bool(halt and halt.needs_person))
    elif halt:
        await rows.resume(subject)
    for name, figures in wrong.items():
        if name not in before:
            log.error("payouts are stopped: recorded and real money differ", subject=subject, rule=rule, name=name, **figures)
    for name in before.keys() - after.keys():
        log.info("recorded and real money agree again", subject=subject, rule=rule, name=name, payouts_go_on=not known)


async def _halt(rows: WatchStore, subject: str) -> Halt | None:
    return next((halt for halt in await rows.halts() if halt.subject == subject), None)


def _rules(figures: Mapping[str, Any]) -> str:
    return ", ".join(sorted(figures))
