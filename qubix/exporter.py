"""Each process answers Prometheus on a port of its own, and says where by a target file.

The port is a free one on the loopback by default, so that nothing collides and nobody else may ask. `<data folder>/prometheus/targets/` holds
one file per process in the form of Prometheus's file_sd; a file whose process has ended is removed by whichever process starts next.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, start_http_server

from qubix.observability import logger
from qubix.settings import Settings

JOB: Final = "qubix"
"""The label by which Prometheus, dashboards and alert rules know our processes."""
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound)
_CLOCKS_DIFFER_S: Final = 1.0
"""A file's time and a process's come from two clocks."""

log = logger("exporter")


class Loops:
    """How the loops of one process go: each step's time, its failures, and when it last went well."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "qubix_loop_seconds",
            "Time of one step of a loop.",
            ["loop"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=registry,
        )
        self._failures = Counter("qubix_loop_failures", "Steps that failed and are tried again.", ["loop"], registry=registry)
        self._good = Gauge("qubix_loop_success_timestamp_seconds", "When a step last went well, as Unix time.", ["loop"], registry=registry)

    @contextlib.contextmanager
    def step(self, loop: str) -> Iterator[None]:
        """Around one step. Args: loop, a name from the code. Raises: what the step raised, counted as a failure if it is an error."""
        began = time.perf_counter()
        failures = self._failures.labels(loop)
        try:
            yield
        except Exception:
            failures.inc()
            raise
        else:
            self._good.labels(loop).set_to_current_time()
        finally:
            self._seconds.labels(loop).observe(time.perf_counter() - began)


def make_registry() -> CollectorRegistry:
    """A registry that already knows its process: memory, CPU time, open files, start."""
    # Else a third of all series says when a counter began, which nothing asks.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@contextlib.contextmanager
def exported(settings: Settings, registry: CollectorRegistry, process: str) -> Iterator[str | None]:
    """Answer Prometheus with this registry while the block runs.

    Args: process, the name of the target's label. Yields: `host:port`; None where it is switched off or the port cannot be had: a process works
    without being watched.
    """
    if not settings.metrics_host:
        yield None
        return
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        log.warning("not exported", host=settings.metrics_host, port=settings.metrics_port, error=str(error))
        yield None
        return
    named = socket.getfqdn() if settings.metrics_host in _WILDCARDS else settings.metrics_host
    address = f"[{named}]:{server.server_port}" if ":" in named else f"{named}:{server.server_port}"
    target = _announce(settings.data_dir, process, address)
    try:
        yield address
    finally:
        if target is not None:
            target.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join(5)


def _announce(data_dir: Path, process: str, address: str) -> Path | None:
    """Write the target file; without one (no data folder here, or another user's) the process is still there to be asked."""
    if not data_dir.is_dir():
        return None
    folder = data_dir / "prometheus" / "targets"
    path = folder / f"{process}-{socket.gethostname()}-{os.getpid()}.json"
    content = json.dumps([{"targets": [address], "labels": {"job": JOB, "process": process}}])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_targets(folder)
        draft = path.with_suffix(".draft")
        draft.write_text(content)
        draft.rename(path)
    except OSError as error:
        log.warning("no target file", path=str(path), address=address, error=str(error))
        return None
    return path


def clear_targets(folder: Path) -> None:
    """Remove the target files of processes of this machine that have ended."""
    for path in folder.glob(f"*-{socket.gethostname()}-*.json"):
        pid = path.stem.rpartition("-")[2]
        if pid.isdecimal() and int(pid) != os.getpid() and not _wrote(int(pid), path):
            path.unlink(missing_ok=True)


def _wrote(pid: int, path: Path) -> bool:
    """Whether the process that has this pid now is old enough to have written the file."""
    try:
        began: float = psutil.Process(pid).create_time()
        return began <= path.stat().st_mtime + _CLOCKS_DIFFER_S
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
