"""The web layer's application under uvicorn in a process of its own, as a Serve replica runs it: same loop, same sockets, no Ray.

python -m benchmarks._web FOLDER     (database URL in FOLDER/web.url, mode 0600; says the port in one line)
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import uvicorn

from qubix import observability
from qubix.bootstrap import open_resources
from qubix.kernel.open_files import raise_limit
from qubix.postgres import schema
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.settings import Settings
from serve_app.app import collect_rarely, create_app

BACKLOG = 4096


@dataclass(frozen=True)
class Served:
    """A database with PostgreSQL's default durability and one web process on it."""

    server: EmbeddedServer
    port: int
    web: psutil.Process
    postgres: psutil.Process

    def cpu_s(self) -> tuple[float, float]:
        """Processor seconds so far, of the web process and of PostgreSQL's processes."""
        return _cpu_s(self.web), _cpu_s(self.postgres) + sum(_cpu_s(child) for child in self.postgres.children(recursive=True))

    def rss_mb(self) -> float:
        """The web process's resident size, in MiB."""
        return round(self.web.memory_info().rss / 2**20, 1)


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


@contextlib.contextmanager
def served() -> Iterator[Served]:
    """Start both; they end with the block."""
    folder, runtime = Path(tempfile.mkdtemp(prefix="qubix-bench-")), Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    server = EmbeddedServer(folder, runtime)
    server.start()
    try:
        asyncio.run(_make_schema(server.url()))
        server.write_url_file("qubix_web", folder / "web.url")
        process = subprocess.Popen([sys.executable, "-m", "benchmarks._web", str(folder)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert server.process is not None
            port = int(process.stdout.readline())
            yield Served(server, port, psutil.Process(process.pid), psutil.Process(server.process.pid))
        finally:
            process.terminate()
            process.wait()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(runtime, ignore_errors=True)


async def _make_schema(url: str) -> None:
    engine = make_engine(url, pool_size=1)
    async with engine.begin() as connection:
        await schema.create(connection)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    await connection.fetchval("SELECT found_ledger('none')")
    await connection.fetchval("SELECT make_metric_partitions(1)")
    await connection.close()


def main() -> None:
    """Serve until SIGTERM."""
    raise_limit()
    folder = Path(sys.argv[1])
    observability.configure(level="warning")
    settings = Settings(data_dir=folder, database_url_file=folder / "web.url", rate_limits=False)
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    collect_rarely()
    app = create_app(open_resources(settings))
    config = uvicorn.Config(app, loop="uvloop", log_config=None, log_level="critical", access_log=False, backlog=BACKLOG)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()
