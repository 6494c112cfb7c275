"""Uploads of 500 MB through the HAProxy ingress and the replica, beside plain uvicorn, which streams the same body to a file.

    python -m benchmarks.upload [--megabytes 500] [--parallel 4] [--rounds 3]

Plain is the least that stores a body as the product promises to: a Starlette route under uvicorn (uvloop, httptools) that
hashes each piece (SHA-256) and writes it as it comes, then flushes the file to the disk and renames it. The two take turns,
with the same sender in a process of its own, on the same disk. Ours also asks who the caller is, holds a quota and records
the file. `replica_grown_mb` is how far the replica's resident memory rose above what it was before (the kernel's own peak);
the bytes that lie in the store afterwards are hashed once more.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from benchmarks._processes import PeakRss, trees
from benchmarks._report import report
from benchmarks._stack import Platform, platform
from qubix.kernel.ports import free_port

BLOCK_BYTES: Final = 1 << 20
GROWN_MAX_MB: Final = 30.0
PLAIN: Final = """
import hashlib, os, sys, uuid
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def put(request):
    digest, name = hashlib.sha256(), f"{sys.argv[2]}/{uuid.uuid4()}"
    with open(name + ".part", "wb", buffering=1 << 20) as file:
        async for piece in request.stream():
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name + ".part", name)
    return JSONResponse({"sha256": digest.hexdigest()}, 201)

app = Starlette(routes=[Route("/api/uploads", put, methods=["PUT"])])
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="error", access_log=False)
"""


@dataclass(frozen=True)
class Sent:
    """Uploads at once: seconds from the first byte until all were answered, and each body's SHA-256 as the server told it."""

    took_s: float
    sha256: list[str]


def blocks(seed: int, size: int) -> Iterator[bytes]:
    """A body of `size` bytes that no other seed has, made so cheaply that its sender is not what is measured."""
    block = hashlib.shake_128(seed.to_bytes(8, "big")).digest(BLOCK_BYTES)
    for at in range(0, size, BLOCK_BYTES):
        yield block[: min(BLOCK_BYTES, size - at)]


def sha256_of(seed: int, size: int) -> str:
    """What a server must find."""
    digest = hashlib.sha256()
    for block in blocks(seed, size):
        digest.update(block)
    return digest.hexdigest()


def put(url: str, key: str, seed: int, size: int) -> str:
    """Upload one body. Returns: the SHA-256 that the server tells. Raises: RuntimeError when it refuses."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    headers = {
        "Content-Length": str(size),
        "Content-Type": "application/octet-stream",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    connection.request("PUT", f"/api/uploads?filename=body-{seed}.zip", body=blocks(seed, size), headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 201:
        raise RuntimeError(f"{answer.status} {text[:300]!r}")
    return str(json.loads(text)["sha256"])


def send(url: str, key: str, seeds: list[int], size: int) -> Sent:
    """Upload several bodies at once from a process of its own."""
    line = [sys.executable, "-m", "benchmarks.upload", "--send", url, str(size), *map(str, seeds)]
    done = subprocess.run(line, input=key, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-800:])
    return Sent(**json.loads(done.stdout))


def _send(url: str, size: int, *seeds: int) -> None:
    key = sys.stdin.read()
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        begun = time.perf_counter()
        found = list(pool.map(lambda seed: put(url, key, seed, size), seeds))
        print(json.dumps({"took_s": time.perf_counter() - begun, "sha256": found}))


@contextlib.contextmanager
def plain_uvicorn(folder: Path) -> Iterator[str]:
    """The route above, storing below `folder`."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", PLAIN, str(port), str(folder)])
    try:
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def stored(stack: Platform, sha256: str) -> bool:
    """Whether the store has bytes of this hash, hashed anew."""
    digest = hashlib.sha256()
    with (stack.folder / "blobs" / sha256[:2] / sha256).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == sha256


class Measuring:
    """One case: uploads at once, ours and plain in turn."""

    def __init__(self, stack: Platform, plain: str, plain_folder: Path, size: int) -> None:
        self._stack, self._plain, self._plain_folder, self._size = stack, plain, plain_folder, size
        self._seed = 0
        self.replicas = [process.pid for role, process in trees([stack.supervisor_pid]) if role == "replica"]
        assert self.replicas, "the platform has no replica"

    def seeds(self, count: int) -> list[int]:
        """Bodies that were never sent."""
        self._seed += count
        return list(range(self._seed - count, self._seed))

    def warm_up(self, key: str) -> None:
        """One small upload each: routes, pools and threads exist."""
        send(self._stack.url, key, self.seeds(1), BLOCK_BYTES)
        send(self._plain, "", self.seeds(1), BLOCK_BYTES)

    def ours(self, name: str, count: int) -> tuple[float, float]:
        """Returns: seconds; MiB by which the replica that grew most did. Removes what it stored."""
        key, seeds = self._stack.account(name), self.seeds(count)
        expected = [sha256_of(seed, self._size) for seed in seeds]
        os.sync()
        peaks = [PeakRss(pid) for pid in self.replicas]
        sent = send(self._stack.url, key, seeds, self._size)
        grown = max(peak.grown_mb() for peak in peaks)
        assert sent.sha256 == expected, "the server's hash differs from the sender's"
        assert all(stored(self._stack, sha256) for sha256 in expected), "the stored bytes have another hash"
        for sha256 in expected:
            (self._stack.folder / "blobs" / sha256[:2] / sha256).unlink()
        return sent.took_s, grown

    def plain(self, count: int) -> float:
        """Returns: seconds. Removes what it stored."""
        seeds = self.seeds(count)
        expected = [sha256_of(seed, self._size) for seed in seeds]
        os.sync()
        sent = send(self._plain, "", seeds, self._size)
        assert sent.sha256 == expected, "the server's hash differs from the sender's"
        for path in self._plain_folder.iterdir():
            path.unlink()
        return sent.took_s


def measure(stack: Platform, *, megabytes: int, parallel: int, rounds: int) -> None:
    """Print the cases `one` and `parallel`."""
    size = megabytes * 1000 * 1000
    folder = stack.folder / "plain"
    folder.mkdir()
    with plain_uvicorn(folder) as plain:
        measuring = Measuring(stack, plain, folder, size)
        measuring.warm_up(stack.account("warm"))
        for case, count in (("one", 1), ("parallel", parallel)):
            ours: list[tuple[float, float]] = []
            plains: list[float] = []
            for n in range(rounds):
                ours.append(measuring.ours(f"{case}-{n}", count))
                plains.append(measuring.plain(count))
            per_s = [count * megabytes / took_s for took_s, _ in ours]
            plain_per_s = [count * megabytes / took_s for took_s in plains]
            grown = [mb for _, mb in ours]
            report(
                "upload",
                case,
                statistics.median(per_s),
                "MB/s",
                against="plain uvicorn: hash, write, flush",
                against_value=statistics.median(plain_per_s),
                reach=0.5,
                aim=0.8,
                must=max(grown) <= GROWN_MAX_MB,
                replica_grown_mb=[round(mb, 1) for mb in grown],
                replica_grown_max_mb=GROWN_MAX_MB,
                replicas=len(measuring.replicas),
                per_s=[round(value) for value in per_s],
                plain_per_s=[round(value) for value in plain_per_s],
                megabytes=megabytes,
                at_once=count,
            )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--send", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        _send(options.send[0], *map(int, options.send[1:]))
        return
    with platform() as stack:
        measure(stack, megabytes=options.megabytes, parallel=options.parallel, rounds=options.rounds)


if __name__ == "__main__":
    main()
