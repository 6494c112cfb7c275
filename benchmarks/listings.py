"""The marketplace's search over a million listings in a real PostgreSQL: the product's own statements, one reader, one case a question.

    python -m benchmarks.listings [--listings 1000000] [--asks 200]

Every page is read anew by `market.search.OfferSearch`, as the web layer reads it. The mark is ours: a page within 100 ms at the
99th percentile (ratio = mark ÷ measured). `refresh` is what the controller asks once a second whether anything happened or not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

import asyncpg
import uvloop

from benchmarks._market import fill, found, server
from benchmarks._report import report
from qubix.kernel.errors import Unavailable
from qubix.market.search import OfferSearch
from qubix.postgres.embedded import EmbeddedServer

MARK_MS: Final = 100.0
WARM_UP: Final = 3
SECONDS_MAX: Final = 8.0
"""A question that is slow is asked less often."""

QUESTIONS: Final = {
    "cheapest": "",
    "dearest": "sort=price_desc",
    "fastest": "sort=performance",
    "best for its price": "sort=cost_benefit",
    "most free": "sort=availability",
    "one model": "model=RTX_4090",
    "one model of a region": "model=H100_SXM&region=eu",
    "large memory, low price": "query=" + quote("vram>=80GB price<13000 gpus>=4"),
    "free words": "q=" + quote("4090 eu-west"),
    "nothing matches": "model=NOSUCH",
    "words that nothing has": "q=zzyzx",
    "a region that nothing has": "region=nowhere",
    "also not rentable": "available=any",
}


async def timed(act: Callable[[], Awaitable[object]], asks: int) -> tuple[list[float], object]:
    """Ask up to `asks` times within SECONDS_MAX, after a few that do not count; one that is given up counts for as long as it took.

    Returns: milliseconds in rising order, the last answer (None: none came).
    """
    answer: object = None
    times: list[float] = []
    until = time.perf_counter() + SECONDS_MAX
    while len(times) < asks + WARM_UP and (not times or time.perf_counter() < until):
        began = time.perf_counter()
        with contextlib.suppress(Unavailable):
            answer = await act()
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times[WARM_UP:] or times), answer


def say(case: str, times: list[float], **extra: object) -> None:
    """Print one case."""
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    report(
        "listings",
        case,
        p99,
        "ms p99",
        against="mark",
        against_value=MARK_MS,
        ratio=MARK_MS / p99,
        reach=1.0,
        aim=5.0,
        p50_ms=round(times[len(times) // 2], 2),
        asks=len(times),
        **extra,
    )


async def sizes(owner: asyncpg.Connection) -> dict[str, float]:
    """MiB of the offers' table and of each of its indexes."""
    rows = await owner.fetch(
        """SELECT c.relname AS name, pg_relation_size(c.oid) AS size FROM pg_class c
           WHERE c.oid = 'offers'::regclass OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'offers'::regclass) ORDER BY 1"""
    )
    return {row["name"]: round(row["size"] / 2**20, 1) for row in rows}


async def tenth_page(search: OfferSearch) -> str:
    """The query string of the tenth page of the cheapest."""
    cursor = ""
    for _ in range(10):
        page = json.loads(await search.page(f"limit=100{cursor}"))
        cursor = f"&cursor={page['next_cursor']}"
    return f"limit=100{cursor}"


async def run(embedded: EmbeddedServer, listings: int, asks: int) -> None:
    """Fill, ask, print."""
    await found(embedded)
    owner = await asyncpg.connect(embedded.url())
    filled_s = await fill(owner, listings, devices=False)
    search = OfferSearch(embedded.url("qubix_web"))
    questions = {**QUESTIONS, "a page far behind": await tenth_page(search)}
    for case, question in questions.items():
        times, answer = await timed(lambda question=question: search.page(question), asks)  # type: ignore[misc]
        say(case, times, items=len(json.loads(answer)["items"]) if isinstance(answer, bytes) else None)
    await search.close()
    controller = await asyncpg.connect(embedded.url("qubix_controller"), server_settings={"jit": "off"})
    times, _ = await timed(lambda: controller.fetchval("SELECT refresh_due_offers(500)"), asks)
    say("refresh, nothing due", times, sizes_mb=await sizes(owner), listings=listings, filled_s=round(filled_s, 1))
    await controller.close()
    await owner.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listings", type=int, default=1_000_000)
    parser.add_argument("--asks", type=int, default=200)
    options = parser.parse_args()
    with server() as embedded:
        uvloop.run(run(embedded, options.listings, options.asks))


if __name__ == "__main__":
    main()
