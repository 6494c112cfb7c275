"""The search beside a route that does nothing, through the same Serve, in one run; plain uvicorn is printed too.

    python -m benchmarks.http [--seconds 4] [--rounds 5] [--connections 16]

200 offers, a page of 50, no answer kept between requests, an operator's key (which no limit counts). The routes take turns,
round by round; the figures are the medians of the rounds. The case `search` asks another question on each connection, so that
no two share a read; `search, the same question` is what many readers of one page get (questions that wait together are asked once).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import UUID

import httpx

from benchmarks._load import NUMBER, Load, load
from benchmarks._report import report
from benchmarks._stack import Platform, platform
from qubix.bootstrap import Resources, open_resources, scope
from qubix.kernel.ports import free_port
from qubix.settings import Settings
from tests.fakes.nodes import join, sample

OFFERS = 200
MODELS = ("RTX_4090", "RTX_3090", "A100", "H100", "L40S")
REGIONS = ("eu-west", "eu-north", "us-east", "us-west", "ap-south")
FRESH_S = 30.0


class Market:
    """Offers of machines that exist in the database alone; measured again before they grow stale."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._nodes: list[tuple[UUID, tuple[str, ...]]] = []
        self._measured_at = 0.0

    def _resources(self) -> Resources:
        return open_resources(Settings(), url=self._url)

    async def fill(self) -> None:
        """Join the machines."""
        resources = self._resources()
        for n in range(OFFERS):
            made = await join(resources, model=MODELS[n % 5], region=REGIONS[n % 5 - n // 40], price=1000 + 7 * n, gpus=1 + n % 2)
            self._nodes.append((made.node_id, made.device_uuids))
        await resources.close()
        self._measured_at = time.monotonic()

    async def refresh(self) -> None:
        """Measure all machines again where it is time."""
        if time.monotonic() - self._measured_at < FRESH_S:
            return
        resources = self._resources()
        for node_id, uuids in self._nodes:
            async with scope(resources) as s:
                await s.providers.record_sample(node_id, sample(uuids))
        await resources.close()
        self._measured_at = time.monotonic()


@contextlib.contextmanager
def plain_uvicorn() -> Iterator[str]:
    """A FastAPI route that does nothing, under uvicorn alone."""
    port = free_port()
    code = "from fastapi import FastAPI, Response\nimport uvicorn\napp = FastAPI()\n"
    code += "@app.get('/noop')\nasync def noop() -> Response:\n    return Response(b'{}', media_type='application/json')\n"
    code += f"uvicorn.run(app, port={port}, log_level='error', access_log=False)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/noop")
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/noop"
    finally:
        process.terminate()
        process.wait()


def measure(stack: Platform, *, rounds: int, seconds: float, connections: int) -> None:
    """Print the case."""
    market = Market(stack.database_url("qubix_web"))
    asyncio.run(market.fill())
    same, noop = f"{stack.url}/api/gpus/search?limit=50&available=true", f"{stack.url}/health/live"
    search = f"{same}&price_max=100{NUMBER}00000"
    page = httpx.get(same, headers={"Authorization": f"Bearer {stack.operator_key}"}).json()
    assert len(page["items"]) == 50, page
    found: dict[str, list[Load]] = {"search": [], "same": [], "noop": [], "uvicorn": []}
    with plain_uvicorn() as plain:
        for url in (search, same, noop, plain):
            load(url, key=stack.operator_key, connections=connections, seconds=1)
        for _ in range(rounds):
            asyncio.run(market.refresh())
            for name, url in (("noop", noop), ("search", search), ("same", same), ("uvicorn", plain)):
                found[name].append(load(url, key=stack.operator_key, connections=connections, seconds=seconds))
    median = {name: statistics.median(run.per_second for run in runs) for name, runs in found.items()}
    report(
        "http",
        "search",
        median["search"],
        "requests/s",
        against="no-op route through the same Serve",
        against_value=median["noop"],
        reach=0.4,
        aim=0.8,
        plain_uvicorn=round(median["uvicorn"]),
        p50_ms=round(statistics.median(run.p50_ms for run in found["search"]), 2),
        p99_ms=round(statistics.median(run.p99_ms for run in found["search"]), 2),
        noop_p50_ms=round(statistics.median(run.p50_ms for run in found["noop"]), 2),
        answer_bytes=found["search"][0].bytes_each,
        connections=connections,
        rounds=rounds,
    )
    report(
        "http",
        "search, the same question",
        median["same"],
        "requests/s",
        against="no-op route through the same Serve",
        against_value=median["noop"],
        p50_ms=round(statistics.median(run.p50_ms for run in found["same"]), 2),
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with platform() as stack:
        measure(stack, rounds=options.rounds, seconds=options.seconds, connections=options.connections)


if __name__ == "__main__":
    main()
