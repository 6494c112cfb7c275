"""A sweep: the whole product under a steady stream of work, one fault after the other, and an oracle that looks after each."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import psutil

from qubix.cli.demo_chain import FAUCET, Network
from qubix.kernel.errors import QubixError
from tests.faults.sweep.oracle import Oracle
from tests.faults.sweep.record import Record
from tests.faults.sweep.recovery import Recovery, Wound, database_recovery, measured, summary, wound_of
from tests.faults.sweep.schedule import Deed, Fault, schedule
from tests.faults.sweep.stage import Stage
from tests.faults.sweep.work import FUNDS, Consumer, Listener, Withdrawer, Worker

REST_EVERY: Final = 25
"""After so many faults the work is brought to its end, so that the oracle can judge what must then be so."""
SETTLED_S: Final = 180.0
"""What is still under way when the last job has ended (earnings mature, events are numbered, payouts are proved) has so long."""
FLOAT: Final = 1_000_000
"""The operator's money for the fees of payments that go together."""
KINDS: Final = (
    ("short", "long", "failing"),
    ("long", "long", "cancelled"),
    ("multi", "short"),
    ("chain", "short", "failing"),
)
"""What each consumer's jobs are chosen from: so each kind is under way nearly always."""


@dataclass
class Report:
    """What a sweep found. Args: faults, how many of each; idle, those that met nothing to break."""

    seed: int
    runs: int = 0
    jobs: int = 0
    withdrawals: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    idle: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> Iterable[str]:
        """For people and programs: one JSON document a line."""
        for line in summary(self.recoveries):
            yield json.dumps(line)
        kinds = Counter(name.partition(" ")[0] for name in self.faults.elements())
        yield json.dumps(
            {
                "sweep": self.seed,
                "faults": self.runs,
                "by_deed": dict(kinds),
                "met_nothing": dict(self.idle),
                "jobs": self.jobs,
                "withdrawals": self.withdrawals,
                "attempts": dict(self.attempts),
                "findings": len(self.findings),
                "seconds": round(self.seconds),
            }
        )


class Sweep:
    """One sweep. Args: seed; runs, how many faults; say, told what happens."""

    def __init__(self, seed: int, runs: int, say: Callable[[str], None], *, only: str = "") -> None:
        self.report = Report(seed)
        self._faults = [fault for fault in schedule(seed, runs) if only in fault.name]
        self._say = say
        self._folder = Path(tempfile.mkdtemp(prefix="qubix-sweep-"))
        self._stage = Stage(self._folder)
        self._record = Record()
        self._workers: list[Worker] = []
        self._wounds: list[Wound] = []

    def run(self) -> Report:
        """All of it. The folder with the logs stays where something was found."""
        began = time.monotonic()
        try:
            self._begin()
            for fault in self._faults:
                self._one(fault)
                if self.report.findings:
                    break
                if fault.number % REST_EVERY == 0:
                    self._rest()
                    if self.report.findings:
                        break
                    self._work()
            if not self.report.findings:
                self._rest()
        except (QubixError, psutil.Error, AssertionError, httpx.HTTPError, OSError) as error:
            self.report.findings.append(f"{type(error).__name__}: {error}")
        finally:
            self.report.seconds = time.monotonic() - began
            self._end()
        if self.report.findings:
            self._say(f"the logs are kept in {self._folder}")
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
        return self.report

    # -- the parts --

    def _begin(self) -> None:
        stage, seed = self._stage, self.report.seed
        self._say("starting the platform and its machines")
        stage.up()
        network = Network(stage.run.urls["qubic"])
        network.pay(FAUCET, stage.until("SELECT identity FROM chain_addresses WHERE purpose = 'house'"), FLOAT)
        for number, kinds in enumerate(KINDS):
            account, chance = stage.whole.account(), random.Random(f"{seed}/{number}")
            self._workers.append(Consumer(f"consumer {number}", stage.client_url, account, self._record, chance, kinds, network))
        self._workers.append(Withdrawer("withdrawer", stage.client_url, stage.whole.account(), self._record, random.Random(f"{seed}/w")))
        provider = stage.whole.provider
        owner = str(provider.get("/api/auth/me")["id"])
        provider_id = str(provider.get("/api/providers/me")["id"])
        self._topics = [f"earnings:{owner}", f"provider:{provider_id}", "marketplace"]
        self._oracle = Oracle(stage.database_url, stage.run.urls["qubic"], self._record, owner)
        self._listener = Listener(stage.client_url, provider, ["earnings", f"provider:{provider_id}", "marketplace"])
        self._listener.start()
        self._say("drawing test money")
        with ThreadPoolExecutor(len(self._workers)) as pool:
            list(pool.map(lambda worker: worker.draw(FUNDS), self._workers))
        for worker in self._workers:
            worker.start()
        self._work()

    def _work(self) -> None:
        for worker in self._workers:
            worker.go()

    def _one(self, fault: Fault) -> None:
        """One fault: wait, break, heal, look."""
        stage, report = self._stage, self.report
        time.sleep(fault.pause_s)
        if fault.machine is not None or fault.target.startswith("head"):
            stage.await_well(nodes=True)
        wound = wound_of(fault, stage)
        began = time.monotonic()
        met = stage.break_it(fault)
        broke_s = time.monotonic() - began
        report.runs += 1
        report.faults[fault.name] += 1
        if not met:
            report.idle[fault.name] += 1
        elif wound is not None:
            self._wounds.append(wound)
        if met and fault.deed is Deed.KILL and fault.target == "postgres":
            report.recoveries.append(database_recovery(stage, fault, self._a_write()))
        stage.rejoin(fault)
        healed_s = stage.await_well(nodes=False)
        report.findings += self._record.findings + self._oracle.look(at_rest=False)
        jobs = f"{sum(one.ended for one in self._record.jobs)}/{len(self._record.jobs)} jobs"
        self._say(f"{fault}{'' if met else ' (nothing there)'}: {broke_s:.1f} s, well after {healed_s:.1f} s, {jobs}")

    def _a_write(self) -> httpx.Request:
        whole = self._stage.whole
        headers = {"Authorization": str(whole.provider.http.headers["Authorization"]), "Idempotency-Key": uuid4().hex}
        return httpx.Request("POST", f"{whole.url}/api/auth/keys", json={"name": "a write"}, headers=headers)

    def _rest(self) -> None:
        """Bring everything to its end, and judge it."""
        self._say("resting")
        self._stage.await_well(nodes=True)
        for worker in self._workers:
            worker.rest()
        deadline = time.monotonic() + SETTLED_S
        while True:
            wrong = self._record.findings or [*self._oracle.look(at_rest=True), *self._left(), *self._untold()]
            if self._record.findings or not wrong or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        self.report.findings += wrong
        self.report.recoveries += measured(self._stage.database_url, self._wounds)
        self._wounds.clear()
        self._say(f"at rest: {len(wrong)} findings")

    def _untold(self) -> list[str]:
        missed = self._oracle.missed(self._listener.told, self._topics)
        found = [f"the listener was never told of {len(missed)} events: {missed[:10]}"] if missed else []
        return found + ([f"the listener was told {self._listener.repeats} events twice"] if self._listener.repeats else [])

    def _left(self) -> list[str]:
        """What ended attempts left on their machines."""
        found = []
        for machine in self._stage.machines:
            for folder in ("sandbox/attempts", "work", "spool"):
                if left := [entry.name for entry in (machine.home / folder).iterdir()] if (machine.home / folder).exists() else []:
                    found.append(f"{machine.home.name} keeps {folder}: {left[:5]}")
            boxes = [one.pid for one in machine.programs("bwrap")]
            if boxes:
                found.append(f"{machine.home.name} runs sandboxes of nothing: {boxes}")
        return found

    def _end(self) -> None:
        for worker in self._workers:
            worker.end()
        if hasattr(self, "_listener"):
            self._listener.end()
        report = self.report
        report.jobs, report.withdrawals = len(self._record.jobs), len(self._record.withdrawals)
        report.attempts = Counter(attempt["state"] for one in self._record.jobs for attempt in one.last.get("attempts", []))
        self._stage.down()
        report.findings += [] if report.findings else self._remains()

    def _remains(self) -> list[str]:
        """Processes and folders that outlived all of it."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if process.pid != os.getpid() and any(mark in line for mark in (str(self._folder), *self._stage.runtime_dirs)):
                    found.append(f"still runs: {process.pid} {line[:150]}")
            except psutil.Error:
                continue
        found += [f"left behind: {folder}" for folder in self._stage.runtime_dirs if Path(folder).exists()]
        mounts = Path("/proc/self/mountinfo").read_text()
        return found + [f"still mounted below {mark}" for mark in (str(self._folder), *self._stage.runtime_dirs) if mark in mounts]


def told(text: str) -> None:
    """Say it at once, with the time."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main(seed: int, runs: int, only: str = "") -> int:
    """Run one and print it. Returns: the exit code, 1 where something was found."""
    report = Sweep(seed, runs, told, only=only).run()
    for line in report.lines():
        sys.stdout.write(line + "\n")
    for finding in report.findings:
        sys.stdout.write(f"FINDING {finding}\n")
    if report.findings:
        sys.stdout.write(f"again: make faults SEED={seed} RUNS={report.runs}\n")
    sys.stdout.flush()
    return 1 if report.findings else 0
