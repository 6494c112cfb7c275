"""One campaign for all tests of this folder: every attack on every rung, several at once, while somebody else's jobs run beside them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from qubix.cli import runfile
from qubix.cli.client import Client
from tests.faults.escape import suite
from tests.faults.escape.world import (
    AT_ONCE,
    REPOSITORY,
    Person,
    Rung,
    Terminals,
    joined,
    kinds_of_user,
    listening,
    merged,
    outside,
    services,
    unix_sockets,
)
from tests.whole import FINAL, Whole

VICTIM_S = 3500
FUNDS = 100_000_000
READ_MAX_BYTES = 2 << 20
HONEST = """
import sys, os
import json, qubix_job
assert sorted(os.listdir("/tmp")) == [] and sorted(os.listdir("/out")) == []
print("honest", [name for name in sys.modules if "evil" in name or "sitecustomize" in name], flush=True)
"""


@dataclass
class Run:
    """An attack's job, at its end. Args: code, of `qubix run`; log, by stream; results, bytes by name, without the large ones."""

    attack: suite.Attack
    code: int
    job: Mapping[str, Any]
    log: dict[str, str] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What it printed."""
        return self.log.get("out", "") + self.log.get("err", "")


@dataclass
class Ascent:
    """All that was done on one rung."""

    rung: Rung
    canary: str
    neighbour: Person
    attackers: queue.Queue[Person]
    """Who has nothing under way: one account holds one quote at a time."""
    victim: Mapping[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """What `qubix logs` shows at a terminal, by attack, where a test asks for it."""
    downloads: dict[str, Path] = field(default_factory=dict)
    cancelled: Mapping[str, Any] = field(default_factory=dict)
    cancelled_log: str = ""
    gone_after_s: float = 0.0
    honest: Mapping[str, Any] = field(default_factory=dict)
    honest_log: str = ""


@dataclass
class Campaign:
    """Everything. Args: missing, why a rung could not be had here."""

    whole: Whole
    folder: Path
    people: list[Person] = field(default_factory=list)
    ascents: dict[str, Ascent] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    """What the controls printed: attacks that run without any wall."""
    took_s: float = 0.0

    def on(self, rung: str) -> Ascent:
        """What was done on a rung. Skips the test, with the reason, where this machine does not have it."""
        if rung not in self.ascents:
            pytest.skip(self.missing[rung])
        return self.ascents[rung]


@pytest.fixture(scope="module")
def campaign(whole: Whole) -> Iterator[Campaign]:
    """Run it."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="qx-attack-", dir="/tmp"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        terminals = Terminals()
        stack.callback(terminals.close)
        made = Campaign(whole, folder)
        with ThreadPoolExecutor(2 * AT_ONCE) as pool:
            rungs = list(pool.map(lambda user: stack.enter_context(joined(whole, user)), kinds_of_user()))
            by_name = {rung.name: rung for rung in reversed(rungs)}
            for name, why in (
                ("cgroup", "no control group can be made here: start the tests as root, or in a scope with Delegate=yes"),
                ("rlimits", "this user may make control groups: run the tests as root to see the other rung too"),
            ):
                if name not in by_name:
                    made.missing[name] = why
            ascents = [begin(made, terminals, rung) for rung in by_name.values()]
            made.ascents = {ascent.rung.name: ascent for ascent in ascents}
            list(pool.map(lambda person: person.sign_up(whole.url, FUNDS), made.people))
            given = stack.enter_context(surroundings(made, rungs))
            began = time.monotonic()
            list(pool.map(lambda ascent: settle_a_neighbour(made, ascent), ascents))
            waiting = [
                pool.submit(attack, made, ascent, one, given_to(one.name, given, ascent)) for one in suite.SUITE for ascent in ascents
            ]
            waiting += [pool.submit(cancel, made, ascent) for ascent in ascents]
            controls = {name: pool.submit(outside, folder, name) for name in suite.CONTROLS}
            for future in waiting:
                future.result()
            made.outside = {name: future.result() for name, future in controls.items()}
            list(pool.map(lambda ascent: finish(made, ascent), ascents))
            made.took_s = time.monotonic() - began
            print(f"attacks of {len(ascents)} rungs: {made.took_s:.0f} s, after {began - started:.0f} s to have the machines")
        yield made


@contextlib.contextmanager
def surroundings(made: Campaign, rungs: list[Rung]) -> Iterator[dict[str, Any]]:
    """What there is to be reached: the platform's and the machines' ports, sockets and files."""
    whole, folder = made.whole, made.folder
    run = runfile.read(whole.data_dir)
    assert run is not None
    assert run.supervisor is not None
    supervisor = psutil.Process(run.supervisor.pid)
    trees = [supervisor, *supervisor.children(recursive=True), *(process for rung in rungs for process in rung.machine.tree())]
    secret = folder / "qubix-secret.txt"
    secret.write_text("TOP-SECRET")
    secret.chmod(0o644)
    runtimes = [Path(run.runtime_dir)]
    for rung in rungs:
        found = runfile.read(rung.machine.home)
        assert found is not None
        runtimes.append(Path(found.runtime_dir))
    homes = [rung.machine.home for rung in rungs]
    paths = [
        whole.data_dir,
        *(whole.data_dir / "secrets").iterdir(),
        run.facts["ray_token_file"],
        whole.data_dir / "run.json",
        *runtimes,
        secret,
    ]
    paths += [home / below for home in homes for below in ("", "key.pem", "agent.json", "agent.log", "spool", "work", "sandbox", "locks")]
    paths += [home.parent / "ray.token" for home in homes]
    paths += [*(person.config for person in made.people), REPOSITORY / "qubix", REPOSITORY / "tests"]
    with services(folder) as open_to_all:
        abstract = [line.split()[-1].removeprefix("@") for line in Path("/proc/net/unix").read_text().splitlines() if " @" in line]
        known: dict[str, Any] = {
            "ports": listening(trees),
            "sockets": unix_sockets([*runtimes, whole.data_dir])[:40],
            "abstract": abstract[:20],
            "paths": [str(path) for path in paths],
            "others": [str(home / below) for home in homes for below in ("sandbox/attempts", "work", "spool")],
            "application": whole.url,
            "world": True,
            "users": [0, os.geteuid(), 65534 - 1, 1000, 1_900_000_000],
        }
        assert len(known["ports"]) > 8, known["ports"]
        assert known["sockets"]
        yield merged(known, open_to_all)


def given_to(name: str, given: Mapping[str, Any], ascent: Ascent) -> dict[str, Any]:
    """What the script of that attack is told; paths to neighbours are never told to those who do not look for them."""
    wanted = {
        "read_the_machine": ("paths",),
        "tcp_to_the_machine": ("ports", "host", "application", "world"),
        "unix_sockets": ("abstract", "sockets"),
        "spy": ("others",),
        "other_users": ("users",),
    }
    return {key: given[key] for key in wanted.get(name, ())}


def begin(made: Campaign, terminals: Terminals, rung: Rung) -> Ascent:
    """The people of a rung: as many attackers as GPUs that the neighbour leaves."""
    ascent = Ascent(rung, f"CANARY-{os.urandom(8).hex()}", Person(terminals, made.folder, f"neighbour-{rung.name}"), queue.Queue())
    made.people.append(ascent.neighbour)
    for number in range(AT_ONCE - 1):
        made.people.append(Person(terminals, made.folder, f"attacker-{rung.name}-{number}"))
        ascent.attackers.put(made.people[-1])
    return ascent


@contextlib.contextmanager
def free_attacker(ascent: Ascent) -> Iterator[Person]:
    """One who has nothing under way."""
    person = ascent.attackers.get()
    try:
        yield person
    finally:
        ascent.attackers.put(person)


def settle_a_neighbour(made: Campaign, ascent: Ascent) -> None:
    """Start the neighbour's job, which has a secret in every place that a job has."""
    path = suite.put(made.folder / f"neighbour-{ascent.rung.name}", "victim", {"stays_s": VICTIM_S}, {})
    given = f"arguments={ascent.canary}"
    ascent.victim = ascent.neighbour.told("run", str(path), "--gpu", ascent.rung.gpu, "-p", given, "-y", "--detach")
    with Client(made.whole.url, ascent.neighbour.key) as client:
        until(lambda: ascent.canary in read_log(client, ascent.victim["id"]).get("out", ""), 300)


def attack(made: Campaign, ascent: Ascent, one: suite.Attack, given: Mapping[str, Any]) -> None:
    """Run one attack by `qubix run`, and keep what came of it."""
    path = suite.put(made.folder / ascent.rung.name, one.name, given, one.needs)
    with free_attacker(ascent) as attacker:
        wanted = ("--gpu", ascent.rung.gpu, "--max-duration", one.duration, "--wait", "10min")
        code, said, aside = attacker.run("run", str(path), *wanted, "-y", "--json")
        assert said.count("\n") == 1, (one.name, code, said, aside)
        job = json.loads(said)
        assert "reason" in job, (one.name, said)
        run = ascent.runs[one.name] = Run(one, code, job)
        with Client(made.whole.url, attacker.key) as client:
            run.log = read_log(client, job["id"])
            for item in client.get(f"/api/jobs/{job['id']}/artefacts")["items"]:
                if item["size"] <= READ_MAX_BYTES and len(run.results) < 50:
                    run.results[item["name"]] = client.http.get(f"/api/jobs/{job['id']}/artefacts/{quote(item['name'])}").content
        if one.name == "log_injection":
            ascent.shown[one.name] = attacker.saw_at_a_terminal("logs", job["id"])
        if one.name in ("artefact_names", "hostile_results"):
            ascent.downloads[one.name] = path.parent / "results"
            attacker.told("artefacts", job["id"], "--download", str(ascent.downloads[one.name]))


def read_log(client: Client, job_id: str) -> dict[str, str]:
    """What a job's log says, by stream."""
    found: dict[str, str] = {}
    after = 0
    while items := client.get(f"/api/jobs/{job_id}/logs", after=after)["items"]:
        for item in items:
            found[item["stream"]] = found.get(item["stream"], "") + item["text"]
        after = items[-1]["position"]
    return found


def cancel(made: Campaign, ascent: Ascent) -> None:
    """Cancel a job that will not leave; measure until nothing of it is left on its machine."""
    path = suite.put(made.folder / ascent.rung.name, "slow_to_leave", {}, {})
    with free_attacker(ascent) as attacker:
        job = attacker.told("run", str(path), "--gpu", ascent.rung.gpu, "--wait", "10min", "-y", "--detach")
        with Client(made.whole.url, attacker.key) as client:
            until(lambda: "won" in read_log(client, job["id"]).get("out", ""), 300)
            time.sleep(0.5)
            began = time.monotonic()
            attacker.told("cancel", job["id"], "-y")
            ascent.cancelled = ended(client, job["id"])
            attempt = ascent.cancelled["attempts"][-1]["id"]
            until(lambda: not (ascent.rung.machine.home / "sandbox/attempts" / attempt).exists(), 300)
            ascent.gone_after_s = time.monotonic() - began
            ascent.cancelled_log = read_log(client, job["id"])["out"]


def finish(made: Campaign, ascent: Ascent) -> None:
    """End the neighbour's job and run an honest one."""
    ascent.neighbour.told("cancel", ascent.victim["id"], "-y")
    path = made.folder / f"honest-{ascent.rung.name}.py"
    path.write_text(HONEST)
    with Client(made.whole.url, ascent.neighbour.key) as client:
        ascent.victim = ended(client, ascent.victim["id"])
        ascent.honest = ascent.neighbour.told("run", str(path), "--gpu", ascent.rung.gpu, "-y", codes=(0, 100))
        ascent.honest_log = read_log(client, ascent.honest["id"]).get("out", "")


def ended(client: Client, job_id: str) -> Mapping[str, Any]:
    """The job, once it has ended and its receipt is final."""
    seen: list[Mapping[str, Any]] = []

    def over() -> bool:
        seen.append(client.get(f"/api/jobs/{job_id}"))
        return seen[-1]["state"] in FINAL and seen[-1]["receipt"]["final"]

    until(over, 300)
    return seen[-1]


def until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)
