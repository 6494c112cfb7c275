"""Heartbeats of many machines: from sending one until it is in the database, and what that costs the server.

    python -m benchmarks.heartbeats [--providers 1000 5000] [--seconds 20] [--beat-s 5]

The real agent protocol over real sockets: hello with a registered key, a session, statuses with measurements, pings as an agent
sends them. The server is the web layer's application in one process on PostgreSQL with its default durability; the machines are
another process. A beat counts as stored when its answer has arrived, which is sent after its commit: a little more than asked.
Afterwards the database is asked whether every answered beat is there.

Marks: 1 000 providers at one beat per 5 s with p99 ≤ 100 ms and under half a core, web process and PostgreSQL together (`ratio`
is the smaller of the two margins, 1 is the mark); the aim is 5 000. `cpu_ms_per_beat` is what capacity is derived from; it falls
as more beats share a transaction. The messages to watching clients go through a hub in the same process here, through the Ray hub in
a stack of several replicas.

Limits of a machine: a session is one open file of the web process (`open_files_max`; raise the hard limit, or add replicas), and one port
of the client's address. Of one database: its processor; the beats of more machines than one web process carries go through more replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

import asyncpg

from benchmarks._machines import Identity, save
from benchmarks._report import report
from benchmarks._web import Served, served
from qubix.kernel.open_files import raise_limit

P99_MAX_MS = 100.0
CORES_MAX = 0.5
PROVIDERS = 1000
AIM = 5000

# What a sign-up and a join leave behind, for many machines at once; the owner's hand, before the clock starts. Facts and offers come with hello.
_REGISTER = """
WITH given AS (SELECT * FROM unnest($1::uuid[], $2::bytea[]) AS g (id, key)),
people AS (INSERT INTO users (id, email) SELECT id, id || '@example.org' FROM given),
owners AS (INSERT INTO providers (id, owner_id, name) SELECT id, id, 'bench' FROM given)
INSERT INTO nodes (id, provider_id, worker_id, public_key, name, region) SELECT id, id, 'w-' || id, key, 'bench', 'eu' FROM given
"""


async def register(url: str, identities: list[Identity]) -> None:
    """Make the machines known, each of a provider of its own."""
    connection = await asyncpg.connect(url)
    await connection.execute(_REGISTER, [one.node for one in identities], [one.public_key for one in identities])
    await connection.close()


async def lost(url: str, answered: dict[str, int]) -> int:
    """How many answered beats the database does not have: by the sequence number of the session, and as rows of measurements."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        """SELECT n.id, n.session_seq, (SELECT count(*) FROM devices d JOIN device_metrics m ON m.device_id = d.id WHERE d.node_id = n.id) AS samples
           FROM nodes n WHERE n.id = ANY ($1::uuid[])""",
        [UUID(node) for node in answered],
    )
    await connection.close()
    return sum(max(0, answered[str(row["id"])] - min(row["session_seq"], row["samples"])) for row in rows)


def measure(stack: Served, providers: int, *, beat_s: float, seconds: float) -> dict[str, object]:
    """Print one case."""
    identities = [Identity() for _ in range(providers)]
    asyncio.run(register(stack.server.url(), identities))
    with tempfile.TemporaryDirectory() as folder:
        save(identities, Path(folder))
        line = [sys.executable, "-m", "benchmarks._machines", str(stack.port), folder, str(beat_s), str(seconds)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as machines:
            assert machines.stdout is not None
            if machines.stdout.readline() != "ready\n":
                raise RuntimeError("the machines did not connect: see above")
            before = stack.cpu_s()
            found = json.loads(machines.stdout.readline())
            after = stack.cpu_s()
    times_ms = [1000 * taken for taken in found["times_s"]]
    p50_ms, p99_ms = times_ms[len(times_ms) // 2], times_ms[int(len(times_ms) * 0.99)]
    web_s, postgres_s = (b - a for a, b in zip(before, after, strict=True))
    missing = asyncio.run(lost(stack.server.url(), found["answered"]))
    good = not (found["refused"] or found["unanswered"] or found["held_up"] or missing)
    reached = providers < AIM
    return report(
        "heartbeats",
        "providers" if reached else "providers, the aim",
        p99_ms,
        "ms",
        against="100 ms until it is in the database, and half a core",
        against_value=P99_MAX_MS,
        ratio=min(P99_MAX_MS / p99_ms, CORES_MAX * seconds / (web_s + postgres_s)) if good else 0.0,
        reach=1.0 if reached else None,
        aim=None if reached else 1.0,
        providers=providers,
        beat_s=beat_s,
        beats=found["sent"],
        p50_ms=round(p50_ms, 1),
        max_ms=round(times_ms[-1], 1),
        cores={"web": round(web_s / seconds, 3), "postgres": round(postgres_s / seconds, 3)},
        cpu_ms_per_beat={"web": round(1000 * web_s / found["sent"], 3), "postgres": round(1000 * postgres_s / found["sent"], 3)},
        web_rss_mb=stack.rss_mb(),
        connect_s=round(found["connect_s"], 1),
        unanswered=found["unanswered"],
        held_up=found["held_up"],
        answered_and_lost=missing,
        refused=found["refused"],
        open_files_max=raise_limit(),
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--providers", type=int, nargs="+", default=[PROVIDERS, AIM])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--beat-s", type=float, default=5.0)
    options = parser.parse_args()
    for providers in options.providers:
        with served() as stack:
            measure(stack, providers, beat_s=options.beat_s, seconds=options.seconds)


if __name__ == "__main__":
    main()
