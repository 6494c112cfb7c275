"""The market: `qubix offers`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len

from qubix.cli.account import connect_as_anybody
from qubix.cli.client import ApiError, Client
from qubix.cli.output import JsonFlag, Output, amount, bare, memory, plain, table

_GROUPS: Final = {"gpu": "model", "provider": "provider"}


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="Jobs")(offers)


def offers(
    query: Annotated[
        str | None, typer.Argument(help="Typed fields, e.g. 'gpu=RTX_4090 vram>=24GB price<2000 region in \\[eu,us]'.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="price, price_desc, performance, availability or cost_benefit.")] = None,
    group_by: Annotated[str | None, typer.Option("--group-by", help="gpu, provider, or both with a comma.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are taken, paused or offline.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Search the GPUs on offer: only what could be placed now, unless --all."""
    out = Output(as_json)
    wanted = _groups(group_by)
    with connect_as_anybody() as client:
        try:
            items = client.pages("/api/gpus/search", items_max=limit, query=query, sort=sort, available="any" if everything else None)
        except ApiError as error:
            if query is not None and "position" in error.extra:
                out.note(plain(underlined(query, error.extra["position"], error.extra.get("length", 1))))
            raise
        if not items:
            _nothing(out, client, query, everything=everything, member="groups" if wanted else "items")
            return
    if wanted:
        groups = grouped(items, wanted)
        out.show(_group_table(groups, wanted))
        out.finish({"groups": groups}, then=("qubix offers QUERY", "qubix run mnist --gpu MODEL"))
        return
    out.show(offer_table(items, status=everything))
    out.finish(
        {"items": items}, then=("qubix run mnist --offer ID", "qubix offers --group-by gpu", "qubix offers 'vram>=24GB' --sort price")
    )


def underlined(query: str, position: int, length: int) -> str:
    """A query, with carets under what is wrong in it."""
    shown = [" " if character.isspace() else bare(character) for character in query]
    before, wrong = "".join(shown[:position]), "".join(shown[position : position + length])
    return f"  {''.join(shown)}\n  {' ' * cell_len(before)}{'^' * max(1, cell_len(wrong))}"


def _nothing(out: Output, client: Client, query: str | None, *, everything: bool, member: str) -> None:
    """Say that nothing matches, and what would: those that are taken, a query with fewer terms, or a GPU of one's own."""
    asked = f" {shlex.quote(query)}" if query else ""
    taken = [] if everything else client.pages("/api/gpus/search", items_max=100, query=query, available="any")
    if taken:
        out.show(plain(f"no offer{' that matches' if query else ''} is free now: {len(taken)} taken, paused or offline"))
        then = (f"qubix offers{asked} --all",)
    elif query:
        out.show(plain(f"no offer matches {query}"))
        then = ("qubix offers --all",)
    else:
        out.show("nobody offers a GPU yet")
        then = ("qubix provider join",)
    out.finish({member: []}, then=then)


def offer_table(items: Iterable[Mapping[str, Any]], chosen: str | None = None, *, status: bool = False) -> Any:
    """Offers as a table; a tick marks the chosen one. Args: status, also say which can be rented, and why not the others."""
    rows = [
        (
            "✔" if chosen is not None and str(item.get("id")) == chosen else "",
            str(item.get("id")),
            item.get("model"),
            memory(item.get("vram_bytes")),
            _free(item),
            amount(item.get("price_per_hour")),
            item.get("region"),
            str(item["provider"]),
            _reliability(item.get("reliability")),
            "measured" if item.get("verified") else str(item.get("detected_by") or "declared"),
            *([_status(item)] if status else []),
        )
        for item in items
    ]
    columns = (
        "",
        "id",
        "gpu",
        "vram",
        "free",
        "per GPU-hour",
        "region",
        "provider",
        "reliability",
        "facts",
        *(["status"] if status else []),
    )
    return table("Offers", columns, rows, right=("vram", "free", "per GPU-hour", "reliability"))


def grouped(items: Iterable[Mapping[str, Any]], by: Iterable[str]) -> list[dict[str, Any]]:
    """Offers put together by their model, their provider, or both: how many, how many GPUs free, the span of prices."""
    names = list(by)
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in items:
        parts = {name: str(item.get("model")) if name == "gpu" else str(item["provider"]) for name in names}
        price = int(item.get("price_per_hour") or 0)
        group = found.setdefault(tuple(parts.values()), {**parts, "offers": 0, "free": 0, "price_min": price, "price_max": price})
        group["offers"] += 1
        group["free"] += int(item["gpus_free"])
        group["price_min"] = min(group["price_min"], price)
        group["price_max"] = max(group["price_max"], price)
    return sorted(found.values(), key=lambda group: group["price_min"])


def _groups(given: str | None) -> list[str]:
    names = [part.strip() for part in (given or "").split(",") if part.strip()]
    for name in names:
        if name not in _GROUPS:
            raise typer.BadParameter(f"{name} is not a group: gpu, provider", param_hint="--group-by")
    return names


def _group_table(groups: list[dict[str, Any]], names: list[str]) -> Any:
    rows = [(*(group[name] for name in names), group["offers"], group["free"], _span(group)) for group in groups]
    return table("Offers, grouped", (*names, "offers", "free GPUs", "per GPU-hour"), rows, right=("offers", "free GPUs", "per GPU-hour"))


def _span(group: Mapping[str, Any]) -> str:
    low, high = group["price_min"], group["price_max"]
    return amount(low) if low == high else f"{amount(low)} to {amount(high)}"


def _free(item: Mapping[str, Any]) -> str:
    return f"{item['gpus_free']}/{item['gpus']}"


def _status(item: Mapping[str, Any]) -> str:
    return {"available": "free", "busy": "taken"}.get(item["status"], str(item["status"]).replace("_", " "))


def _reliability(value: float | None) -> str:
    return "new" if value is None else f"{value * 100:.0f} %"
