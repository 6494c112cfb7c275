"""A large market in a real PostgreSQL, made in one go: providers, nodes with their devices, leases and offers.

The rows are what the product's own triggers would have left; they are switched off while it is filled (`refresh_offers` for a
million rows would take hours, and is measured by others). One seed makes one market.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg

from qubix.market.model import Needs
from qubix.postgres import schema
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.engine import make_engine

BATCH: Final = 100_000
NODES_PER_PROVIDER: Final = 10
FREE_SHARE: Final = 0.3
"""Of the devices nobody has leased at the start; a market that has room would flatter every search for a free one."""

# (model, GiB of a device, TFLOPS, units per hour): prices as renting markets have them, a tenth either way.
CATALOGUE: Final = (
    ("RTX_3060", 12, 12.7, 900),
    ("RTX_3080", 10, 29.8, 1500),
    ("RTX_3090", 24, 35.6, 2200),
    ("RTX_4070", 12, 29.1, 1800),
    ("RTX_4080", 16, 48.7, 2600),
    ("RTX_4090", 24, 82.6, 3600),
    ("RTX_5090", 32, 104.8, 5200),
    ("RTX_A4000", 16, 19.2, 1700),
    ("RTX_A6000", 48, 38.7, 4600),
    ("L4", 24, 30.3, 3000),
    ("L40S", 48, 91.6, 7800),
    ("T4", 16, 8.1, 1100),
    ("V100", 32, 15.7, 2500),
    ("A10", 24, 31.2, 3300),
    ("A100_PCIE", 40, 19.5, 9000),
    ("A100_SXM", 80, 19.5, 12000),
    ("H100_PCIE", 80, 51.0, 19000),
    ("H100_SXM", 80, 67.0, 22000),
    ("H200", 141, 67.0, 30000),
    ("MI300X", 192, 163.4, 26000),
)
REGIONS: Final = ("eu-west", "eu-north", "us-east", "us-west", "asia-east", "asia-south", "africa", "oceania")
SIZES: Final = (1, 1, 1, 1, 2, 2, 4, 8)
"""GPUs of a node, as often as they stand here."""
KINDS: Final = (
    *[Needs(gpus=1)] * 6,
    Needs(gpus=1, vram_bytes=24 << 30),
    Needs(gpus=1, vram_bytes=48 << 30),
    Needs(gpus=1, gpu_models=("RTX_4090", "RTX_3090")),
    Needs(gpus=1, regions=("eu",)),
    Needs(gpus=2, vram_bytes=16 << 30),
    Needs(gpus=2, regions=("us",)),
    Needs(gpus=4, vram_bytes=24 << 30),
    Needs(gpus=4, gpu_models=("A100_SXM", "H100_SXM")),
    Needs(gpus=8),
    Needs(gpus=8, vram_bytes=80 << 30),
    Needs(gpus=1, price_max=1000),
    Needs(gpus=1, cpu_cores=48, reliability_min=0.5),
)
"""What jobs ask for, as often as it stands here."""

_MADE: Final = """
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT g.n, gen_random_uuid() AS node_id, gen_random_uuid() AS offer_id, p.id AS provider_id, p.name AS provider, c.model, c.gib * 1073741824::bigint AS vram_bytes,
  c.tflops, greatest(1, round(c.price * (0.9 + 0.2 * random())))::bigint AS price, ($2::text[])[1 + floor(random() * cardinality($2))] AS region,
  ($3::integer[])[1 + floor(random() * cardinality($3))] AS gpus, 4 * (1 + floor(random() * 16))::integer AS cores, random() AS luck
FROM generate_series($1::integer, $1 + $4 - 1) AS g (n)
JOIN bench_providers p ON p.n = g.n / 10, LATERAL (SELECT 1 + floor(random() * 20 + 0 * g.n)::integer AS pick) r JOIN bench_catalogue c ON c.n = r.pick
"""
_NODES: Final = """
INSERT INTO nodes (id, provider_id, worker_id, public_key, name, region, state, session, session_seq, socket_open, last_status_at, metrics_at,
  cpu_model, cpu_cores, ram_bytes, disk_bytes, sandbox)
SELECT node_id, provider_id, 'bench-' || n, decode(repeat('00', 32), 'hex'), 'node-' || n, region, CASE WHEN luck < 0.05 THEN 'offline' ELSE 'online' END,
  gen_random_uuid(), 1, luck >= 0.05, now() + interval '1 day', now() + interval '1 day', 'EPYC 7543', cores, cores * 4294967296, 1e12, '{"ok": "yes"}' FROM made
"""
_DEVICES: Final = """
INSERT INTO devices (node_id, uuid, model, vram_bytes, detected_by, verified)
SELECT node_id, 'GPU-' || n || '-' || k, model, vram_bytes, 'nvml', luck > 0.5 FROM made, generate_series(1, gpus) k
"""
_LEASES: Final = """
INSERT INTO device_leases (device_id, purpose, holder_id, during)
SELECT d.id, 'job', gen_random_uuid(), tstzrange(now(), now() + interval '1 hour' * (1 + 10 * random())) FROM devices d WHERE random() > $1
"""
_OFFERS: Final = """
INSERT INTO offers (id, node_id, model, price_per_hour, tflops, provider_id, provider, region, cpu_model, cpu_cores, ram_bytes, vram_bytes, gpus, gpus_free,
  reliability, attempts, verified, detected_by, listed, status, fresh_until, recount_at, stale_told, search, card, told)
SELECT m.offer_id, m.node_id, m.model, m.price, m.tflops, m.provider_id, m.provider, m.region, 'EPYC 7543', m.cores, m.cores * 4294967296, m.vram_bytes, m.gpus, f.free,
  m.luck, 0, m.luck > 0.5, 'nvml', m.luck >= 0.05, CASE WHEN m.luck >= 0.05 THEN 'available' ELSE 'offline' END,
  CASE WHEN m.luck >= 0.05 THEN now() + interval '1 day' ELSE now() - interval '1 hour' END, CASE WHEN f.free < m.gpus THEN now() + interval '1 day' END, m.luck < 0.05,
  lower(concat_ws(' ', m.model, replace(m.model, '_', ' '), m.provider, m.region, 'EPYC 7543')),
  (SELECT left(row_to_json(c)::text, -1) FROM (SELECT m.offer_id AS id, m.node_id, m.provider_id, m.provider, m.model, m.gpus, m.vram_bytes, m.price AS price_per_hour,
     'QUBIC' AS asset, m.region, 'EPYC 7543' AS cpu_model, m.cores AS cpu_cores, m.cores * 4294967296 AS ram_bytes, m.tflops, m.luck AS reliability, 0 AS attempts,
     m.luck > 0.5 AS verified, 'nvml' AS detected_by) c), ''
FROM made m, LATERAL (SELECT CASE WHEN $1::boolean
  THEN (SELECT count(*) FROM devices d WHERE d.node_id = m.node_id AND NOT EXISTS (SELECT FROM device_leases l WHERE l.device_id = d.id))
  ELSE (SELECT count(*) FROM generate_series(1, m.gpus + 0 * m.n) WHERE random() <= $2) END AS free) f
"""


@contextlib.contextmanager
def server() -> Iterator[EmbeddedServer]:
    """A server of our own in a folder of its own, gone at the end."""
    data, runtime = Path(tempfile.mkdtemp(prefix="qubix-bench-")), Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    started = EmbeddedServer(data / "server", runtime)
    started.start()
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(runtime, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


async def found(embedded: EmbeddedServer) -> None:
    """Make the declared schema."""
    engine = make_engine(embedded.url(), pool_size=1)
    async with engine.begin() as connection:
        await schema.create(connection)
    await engine.dispose()


async def fill(owner: asyncpg.Connection, nodes: int, *, devices: bool, seed: float = 0.4) -> float:
    """Make a market of `nodes` nodes with one offer each.

    Args: owner, a connection of the owner's role; devices, whether devices and their leases are made too (a search reads offers
        alone); seed, of the server's random numbers, -1 to 1.
    Returns: seconds that it took.
    """
    began = time.perf_counter()
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("SET jit = off")
    await owner.fetchval("SELECT setseed($1)", seed)
    await owner.execute("CREATE TEMP TABLE bench_catalogue (n integer, model text, gib bigint, tflops float8, price float8)")
    await owner.copy_records_to_table("bench_catalogue", records=[(n, *row) for n, row in enumerate(CATALOGUE, 1)])
    await owner.execute("CREATE TEMP TABLE bench_providers (n integer PRIMARY KEY, id uuid, owner_id uuid, name text)")
    await owner.execute(
        "INSERT INTO bench_providers SELECT n, gen_random_uuid(), gen_random_uuid(), 'provider ' || n FROM generate_series(0, $1::integer) n",
        nodes // NODES_PER_PROVIDER,
    )
    await owner.execute("INSERT INTO users (id, email) SELECT owner_id, 'bench' || n || '@example.org' FROM bench_providers")
    await owner.execute("INSERT INTO providers (id, owner_id, name) SELECT id, owner_id, name FROM bench_providers")
    for first in range(0, nodes, BATCH):
        async with owner.transaction():
            await owner.execute(_MADE, first, list(REGIONS), list(SIZES), min(BATCH, nodes - first))
            await owner.execute("ANALYZE made")
            await owner.execute(_NODES)
            if devices:
                await owner.execute(_DEVICES)
                await owner.execute(_LEASES + " AND d.node_id IN (SELECT node_id FROM made)", FREE_SHARE)
            await owner.execute(_OFFERS, devices, FREE_SHARE)
    await owner.execute("SET session_replication_role = origin")
    await owner.execute("VACUUM ANALYZE")
    return time.perf_counter() - began
