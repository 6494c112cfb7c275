"""What `qubix run` shows before it asks: the offers, what is locked and how that was computed, the estimate; or why nothing fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qubix.cli.offers import offer_table
from qubix.cli.output import Output, amount, plain, table
from qubix.cli.quantities import spoken
from qubix.cli.telling import why_waiting
from qubix.kernel.errors import Invalid


def show_plan(out: Output, plan: Mapping[str, Any], *, budget: int | None = None) -> None:
    """Show a quote's answer. Args: budget, what was given as the ceiling itself."""
    quote, chosen = plan.get("quote"), plan.get("offer")
    if quote is None or chosen is None:
        out.show(plain(f"nothing fits now: {why_waiting(plan.get('unplaceable') or {})}"))
        out.show("it would wait for a machine, and its money come back if none appears")
        if plan.get("waiting") is not None:
            out.show(table("Plan", ("what", ""), waiting_rows(plan["waiting"], budget)))
        return
    # The quote holds its GPUs for who is asked here: to them they are free.
    chosen = {**chosen, "gpus_free": min(chosen["gpus"], chosen["gpus_free"] + quote["gpus"])}
    considered = [chosen, *(item for item in plan["alternatives"] if item["id"] != chosen["id"])]
    out.show(offer_table(considered, chosen["id"]), table("Plan", ("what", ""), plan_rows(quote, plan["estimate"], budget)))


def agreed_ceiling(plan: Mapping[str, Any]) -> int:
    """What will be locked: by the quote, or while the job waits. Raises: Invalid where nothing is on offer and no price is named."""
    terms = plan.get("quote") or plan.get("waiting")
    if terms is None:
        raise Invalid(
            "nothing is on offer yet, so it is not known what the job would lock",
            next_step="name the most that it may cost: --budget N, or --price-max N per GPU-hour",
        )
    return int(terms["ceiling"])


def agreed_terms(plan: Mapping[str, Any], budget: int | None) -> dict[str, int]:
    """What a job without a quote is sent with, so that just what was shown is locked even if prices move meanwhile."""
    waiting = plan.get("waiting")
    if plan.get("quote") is not None or waiting is None or budget is not None:
        return {}
    return {"budget": waiting["ceiling"], "duration_max_s": waiting["duration_max_s"]}


def waiting_rows(terms: Mapping[str, Any], budget: int | None) -> list[tuple[str, str]]:
    """What a job locks that nothing fits now, with its sum."""
    longest, rate = spoken(terms["duration_max_s"]), amount(terms["rate_max"])
    how = "the budget" if budget is not None else f"highest rate {rate} per hour × {longest}"
    return [
        ("highest rate, of any machine it gets", f"{rate} per hour"),
        ("longest run", longest),
        ("ceiling, locked until the end", f"{amount(terms['ceiling'])} = {how}"),
    ]


def plan_rows(quote: Mapping[str, Any], estimate: Mapping[str, Any], budget: int | None) -> list[tuple[str, str]]:
    """What the chosen offer costs per hour, the most that any other may cost, and the ceiling with its sum."""
    gpus, price = quote["gpus"], quote["price_per_hour"]
    rate, rate_max, longest = price * gpus, quote["rate_max"], spoken(quote["duration_max_s"])
    rows = [("rate of the chosen offer", _per_hour(rate, price, gpus))]
    if rate_max != rate:
        rows.append(("highest rate, for a retry on another node", f"{_per_hour(rate_max, rate_max // gpus, gpus)}, by --price-max"))
    rows.append(("longest run", longest))
    highest = "highest rate" if rate_max != rate else "rate"
    how = "the budget" if budget is not None else f"{highest} {amount(rate_max)} per hour × {longest}"
    rows.append(("ceiling, locked until the end", f"{amount(quote['ceiling'])} = {how}"))
    if budget is not None:
        pays_s = min(quote["duration_max_s"], budget * 3600 // rate) if rate else quote["duration_max_s"]
        rows.append(("it pays, at the chosen rate, for", spoken(pays_s)))
    known = f"{estimate['duration']}, {amount(estimate['cost'])}" if estimate["duration_s"] else "no benchmark for this job yet"
    return [*rows, ("estimate", known)]


def _per_hour(rate: int, price: int, gpus: int) -> str:
    return f"{amount(rate)} per hour" + (f" ({gpus} GPUs × {amount(price)})" if gpus > 1 else "")
