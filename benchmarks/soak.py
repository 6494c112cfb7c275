"""Mixed load for half an hour: do memory, open files and threads of any process of the platform or of its nodes grow?

    python -m benchmarks.soak [--minutes 30] [--sample-s 5] [--network devnet]

One consumer's jobs (short, long with checkpoints, failing, cancelled), uploads that are removed again, searches, WebSockets
that open, listen and close, logins and logouts, and deposits from the simulated chain, each at a fixed rate that the machine
carries with ease: growth is looked for, not load. Every `sample_s` the processes are read from /proc, by role. After the
warm-up (a third of the time: caches, pools and PostgreSQL's shared buffers fill) each role's total of each metric gets the
slope of benchmarks/_slope.py. It counts as zero when its 95 % interval holds zero, or when the interval's upper end adds
less than DAY_MAX in a day. A line per role and metric: `value` per hour, `ratio` 1 where the slope is zero, else what a day may
add ÷ what it adds. Then a line on the run itself: jobs as they had to end, the ledger's audit, and no process left behind.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from benchmarks._processes import Held, by_role, trees
from benchmarks._report import report
from benchmarks._slope import DAY_H, growing, slope
from benchmarks._stack import Platform, platform
from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.kernel.errors import QubixError

DAY_MAX: Final = {"rss_mb": 96.0, "pss_mb": 96.0, "files": 48.0, "threads": 48.0, "processes": 24.0}
"""What a role may add in a day and still count as flat: 4 MiB, 2 open files, 2 threads, 1 process an hour."""
PASSING: Final = frozenset({"sandbox", "other"})
"""Processes that come and go with each job."""
WARM_UP: Final = 1 / 3
FUNDS: Final = 10_000_000
DRAIN_S: Final = 90.0
PRICE: Final = 3600
JOB: Final = {"kind": "script", "duration_max_s": 300, "budget": 1000}
FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
SCRIPT: Final = """
import json, pathlib, sys, time
import qubix_job as job

seconds, code = float(sys.argv[1]), int(sys.argv[2])
began = time.monotonic()
for n in range(int(seconds) + 1):
    print(f"second {n}", flush=True)
    job.progress(100 * n / (int(seconds) + 1), f"second {n}")
    if n % 5 == 4:
        pathlib.Path("state.json").write_text(json.dumps({"n": n, "filler": "x" * 100_000}))
        job.checkpoint("state.json", pct=100 * n / (int(seconds) + 1))
    time.sleep(min(1.0, max(0.0, seconds - (time.monotonic() - began))))
pathlib.Path("result.txt").write_text("y" * 200_000)
sys.exit(code)
"""


@dataclass(frozen=True)
class Kind:
    """A kind of job: its script's arguments, when it is cancelled (seconds, 0: never), how it has to end."""

    name: str
    arguments: str
    cancel_after_s: float
    end: str


KINDS: Final = (Kind("short", "0 0", 0, "COMPLETED"), Kind("long", "25 0", 0, "COMPLETED"), Kind("failing", "1 3", 0, "FAILED"))
CANCELLED: Final = Kind("cancelled", "120 0", 6.0, "CANCELLED")
MIX: Final = (KINDS[0], KINDS[2], KINDS[0], KINDS[1], KINDS[0], CANCELLED)


@dataclass
class Tally:
    """What the load has done, and what went wrong."""

    done: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        """Keep a complaint; the first hundred tell enough."""
        self.done["faults"] += 1
        if len(self.wrong) < 100:
            self.wrong.append(what[:300])


class Load:
    """Threads that each do one thing at a fixed pace until told to stop. A pace that cannot be kept skips beats."""

    def __init__(self, stack: Platform, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self.tally = Tally()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._key = stack.account("consumer")
        self._password = secrets.token_urlsafe(16)
        self._jobs: collections.deque[tuple[str, Kind, float]] = collections.deque()
        self._mix = itertools.cycle(MIX)

    def start(self) -> None:
        """Begin."""
        with self._client() as client:
            client.post("/api/wallets/faucet", {"amount": FUNDS})
            script = self._folder / "main.py"
            script.write_text(SCRIPT)
            self._script_id = client.upload(script)["id"]
            _until(lambda: client.get("/api/wallets/balance")["wallets"][0]["available"] >= FUNDS)
        httpx.post(f"{self._stack.url}/api/auth/signup", json=self._who, timeout=20).raise_for_status()
        paces: tuple[tuple[float, Callable[[Client, int], None]], ...] = (
            (4.0, self._job),
            (1.0, self._look),
            (5.0, self._upload),
            (0.2, self._search),
            (1.0, self._socket),
            (3.0, self._login),
            (20.0, self._deposit),
        )
        for pace_s, act in paces:
            thread = threading.Thread(target=self._pace, args=(pace_s, act), name=act.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ask for nothing more, and see every job end."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        with self._client() as client:
            deadline = time.monotonic() + DRAIN_S
            while self._jobs and time.monotonic() < deadline:
                self._look(client, 0)
                time.sleep(0.5)
        for job_id, kind, _ in self._jobs:
            self.tally.fault(f"the {kind.name} job {job_id} did not end")

    @property
    def _who(self) -> dict[str, str]:
        return {"email": "regular@qubix.example", "password": self._password}

    def _client(self) -> Client:
        return Client(self._stack.url, self._key)

    def _pace(self, pace_s: float, act: Callable[[Client, int], None]) -> None:
        due = time.monotonic()
        with self._client() as client:
            for n in itertools.count():
                due = max(due + pace_s, time.monotonic())
                try:
                    act(client, n)
                    self.tally.done[act.__name__.strip("_")] += 1
                except (httpx.HTTPError, QubixError, OSError, WebSocketException, TimeoutError) as error:
                    self.tally.fault(f"{act.__name__}: {type(error).__name__}: {error}")
                if self._over.wait(max(0.0, due - time.monotonic())):
                    return

    def _job(self, client: Client, _: int) -> None:
        kind = next(self._mix)
        inputs = [{"name": "main.py", "upload_id": self._script_id}]
        made = client.post("/api/jobs/create", {**JOB, "params": {"arguments": kind.arguments}, "inputs": inputs})
        self._jobs.append((made["job"]["id"], kind, time.monotonic()))

    def _look(self, client: Client, _: int) -> None:
        """Go once round the jobs under way: cancel what is to be cancelled, judge what has ended."""
        for _n in range(len(self._jobs)):
            job_id, kind, since = self._jobs.popleft()
            job = client.get(f"/api/jobs/{job_id}")
            if job["state"] in FINAL and job["receipt"]["final"]:
                self._judge(job, kind)
                continue
            if kind.cancel_after_s and job["cancel_requested_at"] is None and time.monotonic() - since > kind.cancel_after_s:
                client.post(f"/api/jobs/{job_id}/cancel", {})
            self._jobs.append((job_id, kind, since))

    def _judge(self, job: dict[str, Any], kind: Kind) -> None:
        receipt = job["receipt"]
        self.tally.done[kind.name] += 1
        if job["state"] != kind.end or len(job["attempts"]) > 1:
            self.tally.fault(f"a {kind.name} job ended {job['state']} after {len(job['attempts'])} attempts: {job['reason_detail']}")
        if receipt["held"] != receipt["charged"] + receipt["refunded"]:
            self.tally.fault(f"the receipt of {job['id']} does not add up")

    def _upload(self, client: Client, n: int) -> None:
        file = self._folder / f"body-{n}.zip"
        file.write_bytes(secrets.token_bytes(2_000_000))
        try:
            made = client.upload(file)
        finally:
            file.unlink()
        client.delete(f"/api/uploads/{made['id']}")

    def _search(self, client: Client, n: int) -> None:
        client.get("/api/gpus/search", limit=50, price_max=PRICE * 1000 + n % 50)

    def _socket(self, _: Client, n: int) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        with connect(f"ws{self._stack.url[4:]}/api/ws", additional_headers=headers, max_size=None) as socket:
            jobs = [f"job:{job_id}" for job_id, _, _ in list(self._jobs)[:5]]
            socket.send(json.dumps({"t": "subscribe", "topics": ["marketplace", "wallet", *jobs]}))
            end = time.monotonic() + (0.5 if n % 4 else 3.0)
            with contextlib.suppress(TimeoutError):
                while (left := end - time.monotonic()) > 0:
                    socket.recv(timeout=left)

    def _login(self, _: Client, _n: int) -> None:
        url = f"{self._stack.url}/api/auth"
        token = httpx.post(f"{url}/login", json=self._who, timeout=20).raise_for_status().json()["access_token"]
        httpx.post(f"{url}/logout", headers={"Authorization": f"Bearer {token}"}, timeout=20).raise_for_status()

    def _deposit(self, client: Client, _: int) -> None:
        client.post("/api/wallets/faucet", {"amount": 1000})


@dataclass
class Series:
    """What each role held at each sample."""

    times_h: list[float] = field(default_factory=list)
    samples: list[dict[str, Held]] = field(default_factory=list)

    def take(self, pids: list[int], now_h: float) -> None:
        """One more sample."""
        self.samples.append(dict(by_role(pids)))
        self.times_h.append(now_h)

    def roles(self) -> list[str]:
        """Those that live as long as the platform: seen in every sample after the warm-up."""
        late = self.samples[self.first :]
        return sorted(role for role in set.intersection(*map(set, late)) - PASSING)

    @property
    def first(self) -> int:
        """The first sample after the warm-up."""
        return int(len(self.samples) * WARM_UP)

    def print(self) -> list[str]:
        """A line for each role and metric. Returns: those that grow."""
        growth = []
        times = self.times_h[self.first :]
        for role, metric in itertools.product(self.roles(), DAY_MAX):
            values = [float(getattr(sample[role], metric)) for sample in self.samples[self.first :]]
            found = slope(times, values)
            grows = growing(found, day_max=DAY_MAX[metric])
            growth += [f"{role} {metric}"] if grows else []
            report(
                "soak",
                f"{role} {metric}",
                found.per_h,
                f"{metric}/h",
                against="what may be added in an hour",
                against_value=DAY_MAX[metric] / DAY_H,
                ratio=DAY_MAX[metric] / (found.high_per_h * DAY_H) if grows else 1.0,
                reach=1.0,
                interval_per_h=[round(found.low_per_h, 3), round(found.high_per_h, 3)],
                first=round(values[0], 1),
                last=round(values[-1], 1),
                most=round(max(values), 1),
                samples=len(values),
            )
        return growth


def soak(stack: Platform, names: tuple[str, ...], *, minutes: float, sample_s: float) -> tuple[Series, Tally, list[str]]:
    """Load and sample. Returns: the samples, what was done, the audit's complaints."""
    members = [member.supervisor.pid for name in names if (member := runfile.read(stack.folder / name)) and member.supervisor]
    load, series = Load(stack, stack.folder), Series()
    load.start()
    begun = due = time.monotonic()
    try:
        while time.monotonic() - begun < minutes * 60:
            series.take([stack.supervisor_pid, *members], (time.monotonic() - begun) / 3600)
            due = max(due + sample_s, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
    finally:
        load.stop()
    with Client(stack.url, stack.operator_key) as operator:
        problems = [str(problem) for problem in operator.get("/api/audit")["problems"]]
    return series, load.tally, problems


@contextlib.contextmanager
def nothing_left(pids: Callable[[], list[int]]) -> Iterator[list[psutil.Process]]:
    """Remember every process of these trees; afterwards the list given has those that still run."""
    left: list[psutil.Process] = []
    seen: dict[int, psutil.Process] = {}

    def remember() -> None:
        seen.update({process.pid: process for _, process in trees(pids())})

    remember()
    yield left
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(process.is_running() for process in seen.values()):
        time.sleep(0.2)
    left += [process for process in seen.values() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the first deposit did not come")
        time.sleep(0.2)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sample-s", type=float, default=5.0)
    parser.add_argument("--network", default="devnet", choices=["devnet", "none"])
    options = parser.parse_args()
    names = ("atlas", "boreas")
    with contextlib.ExitStack() as after:
        with platform(network=options.network, rate_limits="false", dispute_window_s="30") as stack:
            provider = stack.account("provider")
            with stack.node(names[0], "RTX_4090:24GB:4", PRICE, provider), stack.node(names[1], "RTX_4090:24GB:4", PRICE, provider):
                members = [runfile.read(stack.folder / name).supervisor.pid for name in names]  # type: ignore[union-attr]
                roots = [stack.supervisor_pid, *members]
                left = after.enter_context(nothing_left(lambda: roots))
                series, tally, problems = soak(stack, names, minutes=options.minutes, sample_s=options.sample_s)
        growth = series.print()
        after.close()
    wrong = [*tally.wrong[:10], *problems[:5], *(f"left running: {process.pid} {process.name()}" for process in left[:5])]
    report(
        "soak",
        "all of it",
        len(growth),
        "growing series",
        against="none",
        against_value=0.0,
        ratio=0.0 if growth else 1.0,
        reach=1.0,
        must=not wrong,
        growing=growth,
        wrong=wrong,
        done=dict(sorted(tally.done.items())),
        minutes=options.minutes,
        samples=len(series.samples),
    )


if __name__ == "__main__":
    main()
