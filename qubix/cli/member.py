"""This machine as a provider's node: joined once, then kept a member of its owner's Ray cluster until told to stop."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.agent.devices import find_devices
from qubix.agent.home import Home
from qubix.agent.join import join
from qubix.agent.protocol import JoinAnswer
from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.cli.processes import Running, adopt_orphans, reap, seen
from qubix.cli.supervise import Comeback, end_all_below, make_runtime_dir
from qubix.fabric.head import head_answers
from qubix.fabric.labels import NodeLabels
from qubix.fabric.node import NodeSettings, RayNode, Versions, check_versions, installed_versions, start_node
from qubix.fabric.process import RayStartFailed
from qubix.kernel.errors import Invalid, Unavailable

ONLINE_TIMEOUT_S: Final = 60.0
LEAVE_GRACE_S: Final = 1.0
SUPERVISOR_LOG: Final = "supervisor.log"
AGENT_FILE: Final = "agent.json"
_WATCH_INTERVAL_S: Final = 0.2
_HEAD_LOOK_S: Final = 1.0
"""Between two looks whether a head is there again, while there is none to join."""


@dataclass(frozen=True)
class Membership:
    """How this machine takes part.

    Args: url and api_key, of the platform; address and token_file, of the Ray cluster; home, the agent's folder; declared, GPU
        declarations (empty: NVML is asked); name, region, price_per_hour and price_class, of its offers; owner, a process whose
        end also ends the membership.
    """

    url: str
    api_key: str
    address: str
    token_file: Path
    home: Path
    declared: tuple[str, ...]
    name: str
    region: str
    price_per_hour: int
    price_class: str = "standard"
    owner: Running | None = None


class Member:
    """The running node. Args: plan; say, told each step as it begins."""

    def __init__(self, plan: Membership, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self.stopping = threading.Event()
        self.run = runfile.RunFile(supervisor=seen(os.getpid()))
        self.answer: JoinAnswer | None = None
        self._node: RayNode | None = None
        self._runtime: Path | None = None
        self._started_at = 0.0
        self._comeback = Comeback()

    def start(self) -> None:
        """Compare versions, measure the devices, register the key, join the cluster, wait until the platform sees the node online.

        Raises: VersionsDiffer; Invalid without a device; ApiError; RayStartFailed; Unavailable.
        """
        adopt_orphans()
        plan = self.plan
        self.say("comparing versions")
        token = self._admission()
        self.say("measuring the devices")
        worker_id = worker_id_of(plan.home)
        devices = find_devices(plan.declared, worker_id).devices()
        if not devices:
            raise Invalid(
                "this machine has no GPU that NVML sees",
                next_step="install the NVIDIA driver; or, to try things, declare one: --declare-gpu RTX_4090:24GB",
            )
        self.say("registering")
        self.answer = join(
            Home(plan.home),
            plan.url,
            token,
            worker_id=worker_id,
            name=plan.name,
            region=plan.region,
            price_per_hour=plan.price_per_hour,
            declared_gpus=plan.declared,
        )
        self._runtime = make_runtime_dir()
        self.run.runtime_dir = str(self._runtime)
        self.run.facts |= {"node_id": str(self.answer.node_id), "provider_id": str(self.answer.provider_id), "worker_id": worker_id}
        self.run.urls["application"] = plan.url
        self._record()
        self.say("joining the Ray cluster")
        labels = NodeLabels(
            provider=str(self.answer.provider_id),
            worker_id=worker_id,
            region=plan.region,
            price_class=plan.price_class,
            model=devices[0].model,
            vram_gb=min(device.vram_bytes for device in devices) >> 30,
        )
        self._settings = NodeSettings(
            address=plan.address,
            token_path=plan.token_file,
            folder=self._runtime,
            agent_home=plan.home,
            labels=labels,
            num_gpus=len(devices),
        )
        self._start_node()
        self.say("waiting until the platform sees it online")
        self._await_online()

    def announce(self) -> None:
        """Tell other commands, through run.json, that it is ready."""
        self.run.state = "ready"
        self._record()

    def watch(self) -> None:
        """Stay a member until asked to stop; a node that fell out, or whose head was replaced, joins again after a back-off."""
        while not self.stopping.wait(_WATCH_INTERVAL_S):
            if self.plan.owner is not None and seen(self.plan.owner.pid) != self.plan.owner:
                return
            self._look_after_node(time.monotonic())
            reap(keep=[self._node.process.pid] if self._node is not None else [])

    def stop(self) -> None:
        """Leave the cluster; nothing stays running, the runtime folder goes."""
        if self._node is not None:
            self._node.stop(LEAVE_GRACE_S)
        end_all_below()
        if self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
        runfile.path_of(self.plan.home).unlink(missing_ok=True)

    def _admission(self) -> str:
        """A join token from a platform whose versions are this machine's. Raises: VersionsDiffer, with nothing started; ApiError."""
        with Client(self.plan.url, self.plan.api_key) as client:
            made = client.post("/api/providers/join-tokens")
        check_versions(installed_versions(), Versions(made["qubix_version"], made["ray_version"], made["python_version"]))
        return str(made["token"])

    def _start_node(self) -> None:
        self._node = start_node(self._settings)
        self._started_at = time.monotonic()
        self._record()

    def _look_after_node(self, now: float) -> None:
        if self._node is not None:
            if self._node.alive():
                return
            self.say("the node fell out of the cluster; it joins again soon")
            self._node.stop(0.0)
            self._node = None
            end_all_below(0.0)
            self._comeback.fell(now, now - self._started_at)
        if now < self._comeback.due_at:
            return
        if not head_answers(self.plan.address):
            # `ray start` would wait for it for half a minute, and fail.
            self._comeback.due_at = now + _HEAD_LOOK_S
            return
        try:
            self._start_node()
        except RayStartFailed as error:
            end_all_below(0.0)
            failed_at = time.monotonic()
            self._comeback.failed(failed_at)
            self.say(f"cannot join, tried again in {self._comeback.due_at - failed_at:.0f} s: {error.message}")

    def _await_online(self) -> None:
        assert self.answer is not None  # noqa: S101  (typing: start joined)
        deadline = time.monotonic() + ONLINE_TIMEOUT_S
        with Client(self.plan.url, self.plan.api_key) as client:
            while time.monotonic() < deadline and not self.stopping.is_set():
                node = client.get(f"/api/nodes/{self.answer.node_id}")
                if node["presence"] == "online":
                    if node["offers"]:
                        self.run.facts["price_per_hour"] = str(node["offers"][0]["price_per_hour"])
                    return
                time.sleep(0.25)
        raise Unavailable(
            f"the node joined the cluster, but its agent is not online after {ONLINE_TIMEOUT_S:.0f} s",
            next_step=f"read {self.plan.home / 'agent.log'}, and fabric.log in the platform's data folder",
        )

    def _record(self) -> None:
        found = {}
        if self._node is not None:
            for member in self._node.process.members():
                if (process := seen(member.pid)) is not None:
                    found[f"{member.name}/{member.pid}"] = process
        self.run.processes = found
        runfile.write(self.plan.home, self.run)


def made_for_this(home: Path) -> bool:
    """Whether nothing of a node is in a home yet: it is still to be made, or was made just now by `--detach`, for its log."""
    return not home.exists() or {entry.name for entry in home.iterdir()} == {SUPERVISOR_LOG}


def unmake(home: Path) -> None:
    """Remove a home that was made for a node that never joined. What `--detach` reads and removes itself stays. Call under the lock."""
    if (home / AGENT_FILE).exists():
        return
    for entry in home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != SUPERVISOR_LOG:
            entry.unlink()
    if not any(home.iterdir()):
        home.rmdir()


def worker_id_of(home: Path) -> str:
    """The stable id of this home on this machine: the host's name and eight digits of a hash of both."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    digits = hashlib.sha256(f"{machine}\n{platform.node()}\n{home}".encode()).hexdigest()[:8]
    host = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in platform.node())[:40].strip("-") or "node"
    return f"{host}-{digits}"
