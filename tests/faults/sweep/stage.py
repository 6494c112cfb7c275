"""The platform and its machines, with a link in front of everything that can be disturbed, and hands that break it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import psutil

from qubix.cli import runfile
from qubix.kernel.failpoints import FOLDER_VARIABLE
from qubix.postgres.embedded import DATABASE, OWNER
from qubix.postgres.schema import ROLES
from tests.faults.sweep.links import Links
from tests.faults.sweep.schedule import MACHINES, Deed, Fault, Mode
from tests.whole import Machine, Whole

SETTINGS: Final = {"network": "devnet", "devnet_tick_s": "0.3", "attempts_max": "6"}
GPUS_EACH: Final = 2
PRICE: Final = 360_000
STRIKE_S: Final = 12.0
"""How long a place is given to be reached."""
HEAL_S: Final = 400.0
"""How long anything may take to be well again; the figures that are promised are judged apart. `ray start` of a node gives up by itself after 30 s
(ray/_private/node.py) where the processors are taken, and the node tries again: two of those in a row are slow, not broken."""
LOOK_S: Final = 0.1
OURS: Final = ("controller", "fabric", "treasury", "signer", "devnet", "postgres")
TITLES: Final = {
    "replica": "ray::ServeReplica",
    "haproxy": "haproxy",
    "serve_controller": "ray::ServeController",
    "haproxy_manager": "ray::HAProxyManager",
    "proxy": "ray::ProxyActor",
    "hub": "ray::Board",
    "head_gcs": "gcs_server",
    "head_raylet": "raylet",
    "agent": "ray::NodeAgent",
    "raylet": "raylet",
    "host": "ray::AttemptHost",
    "runner": "qubix:attempt",
}
"""How a process calls itself: the beginning of its title, or its program's name."""
LINKS: Final = {"web": "replica"}
"""Whose link to the database: the roles are named after their processes, but for this one."""
PROVOKED: Final = {"fabric.agent_started": "agent", "fabric.death_seen": "raylet"}
"""Places that are reached only where something else dies first, on any machine."""


class NotWell(AssertionError):
    """Something that should have come back by itself did not."""


class Stage:
    """All of it. Args: folder, for everything that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = folder / "places"
        self.places.mkdir()
        self.links = Links()
        self.whole = Whole(folder, {"dispute_window_s": "2", "rate_limits": "false", **SETTINGS})
        self.machines: list[Machine] = []
        self.runtime_dirs: set[str] = set()

    # -- up and down --

    def up(self) -> None:
        """Bring it up: every agent behind a link, every client behind one, every process's database behind one."""
        os.environ[FOLDER_VARIABLE] = str(self.places)
        self.whole.up()
        port = self.run.ports["application"]
        self.client_url = f"http://127.0.0.1:{self.links.open('clients', port)}"
        self._put_links_to_the_database()
        self.whole.provider = self.whole.account()
        for number in range(MACHINES):
            self.links.open(f"agent/{number}", port)
            self.machines.append(self._join(number))
        self.await_well(nodes=True)

    def _put_links_to_the_database(self) -> None:
        port = self.run.ports["postgres"]
        for role in ROLES:
            name = role.removeprefix("qubix_")
            file = self.whole.data_dir / "secrets" / f"{role}.url"
            behind = self.links.open(f"database/{name}", port)
            file.write_text(file.read_text().replace(f":{port}/", f":{behind}/"))
            for pid in self.pids(LINKS.get(name, name)):
                os.kill(pid, signal.SIGKILL)
        self.await_well(nodes=False)

    def _join(self, number: int) -> Machine:
        name = f"m{number}"
        url = f"http://127.0.0.1:{self.links.port(f'agent/{number}')}"
        machine = self.whole.join(name, f"RTX_4090:24GB:{GPUS_EACH}", PRICE, self.whole.provider, url=url)
        member = runfile.read(machine.home)
        assert member is not None
        self.runtime_dirs.add(member.runtime_dir)
        return machine

    def down(self) -> None:
        """Take all of it down."""
        with contextlib.suppress(Exception):
            self.runtime_dirs.add(self.run.runtime_dir)
        self.whole.down()
        self.links.close()
        os.environ.pop(FOLDER_VARIABLE, None)

    # -- looking --

    @property
    def run(self) -> runfile.RunFile:
        """What the supervisor says that runs."""
        found = runfile.read(self.whole.data_dir)
        assert found is not None, "the supervisor is gone"
        return found

    @property
    def database_url(self) -> str:
        """The owner's, past every link."""
        password = (self.whole.data_dir / "secrets" / f"{OWNER}.password").read_text().strip()
        return f"postgresql://{OWNER}:{password}@127.0.0.1:{self.run.ports['postgres']}/{DATABASE}"

    def value(self, sql: str) -> Any:
        """The first column of the first row, as the owner."""

        async def ask() -> Any:
            connection = await asyncpg.connect(self.database_url)
            try:
                return await connection.fetchval(sql)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def until(self, sql: str) -> Any:
        """The same, once it is something. Raises: NotWell."""
        deadline = time.monotonic() + HEAL_S
        while (found := self.value(sql)) is None:
            if time.monotonic() > deadline:
                raise NotWell(f"nothing in {HEAL_S:.0f} s: {sql}")
            time.sleep(LOOK_S)
        return found

    def pids(self, target: str, machine: int | None = None) -> list[int]:
        """The processes that a fault means, the nearest first; none where there is none now."""
        if machine is not None:
            tree = self._tree(machine)
            return [one.pid for one in (tree if target == "machine" else _titled(tree, target))]
        run = self.run
        if target == "head":
            return [process.pid for name, process in run.processes.items() if name.startswith("ray/")]
        if target in OURS:
            if target not in run.processes:
                return []
            first = psutil.Process(run.processes[target].pid)
            return [first.pid, *(child.pid for child in first.children(recursive=True))]
        assert run.supervisor is not None
        return [one.pid for one in _titled(psutil.Process(run.supervisor.pid).children(recursive=True), target)]

    def _tree(self, machine: int) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.machines[machine].tree()
        return []

    # -- breaking --

    def break_it(self, fault: Fault) -> bool:
        """Do it, for as long as it lasts. Returns: whether there was anything to break."""
        if fault.deed is Deed.DISTURB:
            self._disturb(fault)
            return True
        if fault.deed is Deed.STRIKE:
            return self._strike(fault)
        pids = self.pids(fault.target, fault.machine)
        if fault.deed is Deed.FREEZE:
            _signal(pids, signal.SIGSTOP)
            time.sleep(fault.hold_s)
            _signal(reversed(pids), signal.SIGCONT)
        else:
            _signal(pids, signal.SIGKILL)
        return bool(pids)

    def _disturb(self, fault: Fault) -> None:
        name = fault.target if fault.machine is None else f"{fault.target}/{fault.machine}"
        self.links.turn(name, fault.mode)
        time.sleep(fault.hold_s)
        self.links.turn(name, Mode.OPEN)

    def _strike(self, fault: Fault) -> bool:
        place, _, process = fault.target.partition("/")
        files = [self.places / (f"{place}@{pid}" if process else place) for pid in (self.pids(process)[:1] if process else [0])]
        for file in files:
            file.touch()
        if place in PROVOKED:
            _signal(self.pids(PROVOKED[place], fault.number % MACHINES), signal.SIGKILL)
        deadline = time.monotonic() + STRIKE_S
        while time.monotonic() < deadline and any(file.exists() for file in files):
            time.sleep(LOOK_S)
        struck = [file for file in self.places.iterdir() if file.suffix == ".struck"]
        for file in self.places.iterdir():
            file.unlink(missing_ok=True)
        return bool(struck)

    # -- healing --

    def rejoin(self, fault: Fault) -> None:
        """Start a machine again whose very supervisor was killed, as its systemd does."""
        if fault.deed is not Deed.KILL or fault.target != "machine" or fault.machine is None:
            return
        self.machines[fault.machine] = self._join(fault.machine)

    def await_well(self, *, nodes: bool) -> float:
        """Wait until the platform (and every node) is well. Returns: seconds. Raises: NotWell, with what is not."""
        began = time.monotonic()
        while complaint := self._complaint(nodes=nodes):
            if time.monotonic() - began > HEAL_S:
                raise NotWell(f"after {HEAL_S:.0f} s: {complaint}")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def _complaint(self, *, nodes: bool) -> str:
        """What is not well; empty where all is."""
        run = self.run
        if run.state != "ready":
            return f"the supervisor says {run.state}"
        for name in OURS:
            if name not in run.processes or not _runs(run.processes[name].pid):
                return f"{name} does not run"
        try:
            health = httpx.get(f"{self.whole.url}/health/ready", timeout=5)
            if health.status_code != 200:
                return f"the web layer is not ready: {health.text[:300]}"
            if nodes:
                for machine in self.machines:
                    found = self.whole.provider.get(f"/api/nodes/{machine.node_id}")
                    if found["presence"] != "online":
                        return f"node {found['name']} is {found['presence']}"
        except Exception as error:
            return f"the web layer does not answer: {type(error).__name__}: {error}"
        return ""


def _titled(tree: list[psutil.Process], target: str) -> list[psutil.Process]:
    found = []
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            line = process.cmdline()
            if process.name() == TITLES[target] or (line and line[0].startswith(TITLES[target])):
                found.append(process)
    return found


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    return False


def _signal(pids: Iterator[int] | list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
