"""One marketplace event to many open WebSockets: from the commit of the event to the last client.

    python -m benchmarks.fanout [--where replica ingress] [--sockets 10000 7000] [--seconds 10]

`replica`: the sockets are on the port of one Serve replica of a platform started as `qubix up` starts it. `ingress`: they come through
its HAProxy. `plain`: the same application under uvicorn alone, without Ray. Clients are processes of their own (their memory and
processor time are not the server's). Each round commits an event as the product does, and waits until every client has it; then half of
the clients vanish, events happen, they come back from their last position: none missing, none doubled.

Marks: 10 000 on a replica and 7 000 through the ingress within 2 s (ratio = 2 s ÷ the slowest round), aim 1 s. `kb_per_socket`
and `us_per_event_and_socket` (of the replica) are what capacity is derived from.

Limits of a machine: a socket is an open file of the replica, 2.5 of HAProxy (`open_files_max` is this machine's hard limit; raise it, and
qubix/fabric/head.py gives HAProxy as many connections as it carries); a client's address has as many ports as
net.ipv4.ip_local_port_range names, so the clients come from several loopback addresses. More sockets than one replica carries: more replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks._report import report
from benchmarks._stack import platform
from benchmarks._web import served
from qubix.bootstrap import Resources, open_resources, scope
from qubix.fabric.head import connections_max
from qubix.kernel.events import Event, EventType
from qubix.kernel.open_files import raise_limit
from qubix.settings import Settings

SECONDS_MAX = 2.0
SOCKETS = {"replica": 10_000, "ingress": 7_000, "plain": 10_000}
CLIENTS = 4
MISSED = 20
"""Events that happen while half of the clients are away."""
PAUSE_S = 0.2
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Place:
    """Where the sockets go. Args: ingress, the process in between, if any."""

    port: int
    database_url: str
    web: psutil.Process
    ingress: psutil.Process | None = None


class Crowd:
    """The clients, in several processes."""

    def __init__(self, port: int, sockets: int) -> None:
        self._children = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks._followers", str(port), str(sockets // CLIENTS), f"127.0.0.{n + 2}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(CLIENTS)
        ]

    def lines(self) -> list[dict[str, float]]:
        """The next line of each."""
        found = []
        for child in self._children:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                raise RuntimeError("a client process ended: see above")
            found.append(json.loads(line))
        return found

    def say(self, line: str) -> list[dict[str, float]]:
        """Tell all of them; their answers."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(line + "\n")
            child.stdin.flush()
        return self.lines()

    def end(self) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait()


async def publish(resources: Resources, first: int, count: int = 1) -> float:
    """Commit events, one transaction each. Returns: the time just before the last commit."""
    for number in range(first, first + count):
        async with scope(resources) as s:
            s.outbox.add(Event(EventType.MARKETPLACE_UPDATE, ("marketplace",), uuid4(), {"bench": number}))
            begun = time.time()
    await resources.wakes.flush()
    return begun


def measure(where: str, place: Place, *, sockets: int, seconds: float) -> dict[str, object]:
    """Print one case."""
    empty_mb = _rss_mb(place.web)
    crowd = Crowd(place.port, sockets)
    try:
        with asyncio.Runner() as runner:
            resources = runner.run(_open(place.database_url))
            connect_s = max(line["ready"] for line in crowd.lines())
            full_mb, ingress_mb = _rss_mb(place.web), _rss_mb(place.ingress)
            cpu_s, rounds = _cpu_s(place.web), list[float]()
            number, until = 0, time.monotonic() + seconds
            while not rounds or time.monotonic() < until:
                number += 1
                begun = runner.run(publish(resources, number))
                rounds.append(max(line["at"] for line in crowd.lines()) - begun)
                time.sleep(PAUSE_S)
            cpu_s = _cpu_s(place.web) - cpu_s
            crowd.say("drop")
            runner.run(publish(resources, number + 1, MISSED))
            for _ in range(MISSED):
                crowd.lines()
            resumed_s = max(line["seconds"] for line in crowd.say("resume"))
            time.sleep(PAUSE_S)
            found = crowd.say(str(number + MISSED))
            runner.run(resources.close())
    finally:
        crowd.end()
    wrong = {name: sum(int(line[name]) for line in found) for name in ("missed", "doubled", "behind", "closed")}
    rounds.sort()
    reached = not any(wrong.values())
    files = raise_limit()
    return report(
        "fanout",
        "sockets" if where == "replica" else f"sockets, {where}",
        rounds[-1],
        "s",
        against="2 s to the last of them, nothing missed after a reconnect",
        against_value=SECONDS_MAX,
        ratio=SECONDS_MAX / rounds[-1] if reached else 0.0,
        reach=1.0,
        aim=2.0,
        extra_ok=sockets >= SOCKETS[where],
        sockets=sockets,
        rounds=len(rounds),
        median_s=round(statistics.median(rounds), 3),
        connect_s=round(connect_s, 1),
        resumed_s=round(resumed_s, 2),
        resumed=sockets // 2,
        **wrong,
        web_rss_mb=full_mb,
        kb_per_socket=round(1024 * (full_mb - empty_mb) / sockets, 1),
        ingress_rss_mb=ingress_mb,
        us_per_event_and_socket=round(1e6 * cpu_s / (len(rounds) * sockets), 1),
        open_files_max=files,
        ingress_connections_max=connections_max(files),
    )


async def _open(url: str) -> Resources:
    return open_resources(Settings(), url=url, pool_size=2)


def _rss_mb(process: psutil.Process | None) -> float:
    return 0.0 if process is None else round(process.memory_info().rss / 2**20, 1)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def places(where: str) -> Iterator[Place]:
    """Start what the sockets go to."""
    if where == "plain":
        with served() as stack:
            yield Place(stack.port, stack.server.url("qubix_web"), stack.web)
        return
    with platform(rate_limits="false") as stack:
        (config,) = (Path(stack.run.facts["ray_token_file"]).parent / "p").rglob("haproxy.cfg")
        written = config.read_text()
        found = re.search(r"^\s*server \S+ \S+:(\d+)", written, re.MULTILINE)
        assert found is not None, written
        port = int(found[1])
        ingress_port = int(stack.url.rpartition(":")[2])
        web = _listening(port)
        yield Place(port if where == "replica" else ingress_port, stack.database_url("qubix_web"), web, _listening(ingress_port))


def _listening(port: int) -> psutil.Process:
    """Whoever listens on a TCP port of this machine."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise RuntimeError(f"nobody listens on port {port}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--where", nargs="+", choices=list(SOCKETS), default=["replica", "ingress"])
    parser.add_argument("--sockets", type=int, nargs="+", help="one number per --where")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    raise_limit()
    for n, where in enumerate(options.where):
        with places(where) as place:
            measure(where, place, sockets=options.sockets[n] if options.sockets else SOCKETS[where], seconds=options.seconds)


if __name__ == "__main__":
    main()
