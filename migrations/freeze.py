"""Write the declared schema, with its first rows, as the SQL of migration 0001: `python -m migrations.freeze`.

Only for a schema that no deployment has: after the first release a change is a new migration, written by hand.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from pathlib import Path

from qubix.postgres import schema
from qubix.postgres.embedded import EmbeddedServer, binaries
from qubix.postgres.engine import make_engine

TARGET = Path(__file__).with_name("versions") / "0001_initial.sql"
_NOISE = re.compile(r"^(--.*|\\(un)?restrict .*|SET .*|SELECT pg_catalog\.set_config.*|)$")


def dump(url: str, *, rows: bool = True) -> str:
    """The database behind `url` as SQL text in pg_dump's stable order, without comments and session settings."""
    options = ["--no-owner", "--exclude-table=alembic_version", *(["--column-inserts"] if rows else ["--schema-only"])]
    answer = subprocess.run(
        [str(binaries() / "pg_dump"), *options, url], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    return "".join(f"{line}\n" for line in _strip(answer.stdout))


def _strip(text: str) -> list[str]:
    kept: list[str] = []
    in_body = False
    for line in text.splitlines():
        opens = line.count("$$") + line.count("$_$")
        if not in_body and _NOISE.match(line):
            continue
        if opens % 2:
            in_body = not in_body
        kept.append(line)
    return kept


async def _build(url: str) -> None:
    engine = make_engine(url, pool_size=1)
    async with engine.begin() as connection:
        await schema.create(connection)
    await engine.dispose()


def main() -> None:
    """Build the declared schema on a private server and write it down."""
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory(prefix="qz-", dir="/tmp") as runtime:
        server = EmbeddedServer(Path(data) / "server", Path(runtime), sync=False)
        server.start()
        try:
            asyncio.run(_build(server.url()))
            # CREATE SCHEMA public is there already; everything else is ours.
            TARGET.write_text(
                "SET LOCAL check_function_bodies = off;\n" + re.sub(r"^CREATE SCHEMA public;\n", "", dump(server.url()), flags=re.M)
            )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
