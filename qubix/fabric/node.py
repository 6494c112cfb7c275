"""A provider's machine as a member of its owner's Ray cluster: what `qubix provider join` starts and stops."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from qubix import __version__
from qubix.fabric.head import FOLDER_LENGTH_MAX
from qubix.fabric.labels import NodeLabels, to_text
from qubix.fabric.process import RayProcess, RayStartFailed, ray_environment, temporary_folder
from qubix.kernel.errors import Conflict
from qubix.kernel.ports import free_ports

AGENT_HOME_VARIABLE = "QUBIX_AGENT_HOME"
"""Names the agent's home folder to the processes of its own node; the folder holds the key, so only the path travels."""
START_TIMEOUT_S = 120.0
_STARTED = "Ray runtime started."
_FEATURES = {
    # How often a raylet asks whether the head still knows it. A head that was started again knows nobody, and says so: the raylet
    # ends, and the machine joins again. The default is 60 s. While no head answers, a raylet waits 60 s before it gives up.
    "RAY_raylet_liveness_self_check_interval_ms": "2000",
}


class VersionsDiffer(Conflict):
    """This machine's Ray, Python or Qubix does not fit the cluster's."""

    code = "versions_differ"


@dataclass(frozen=True, slots=True)
class Versions:
    """What must agree between the machines of one cluster."""

    qubix: str
    ray: str
    python: str


def installed_versions() -> Versions:
    """The versions of this installation."""
    return Versions(__version__, version("ray"), platform.python_version())


def check_versions(here: Versions, cluster: Versions) -> None:
    """Refuse a machine whose code would not run with the cluster's: agent code is imported on the node, not shipped.

    Qubix and Ray must be equal, Python in its minor version. Raises: VersionsDiffer, naming both sides.
    """
    pairs = [("Qubix", here.qubix, cluster.qubix), ("Ray", here.ray, cluster.ray), ("Python", _minor(here.python), _minor(cluster.python))]
    differing = [(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]
    if differing:
        told = "; ".join(f"{name} here {mine}, in the cluster {theirs}" for name, mine, theirs in differing)
        raise VersionsDiffer(
            f"This machine's versions differ from the cluster's: {told}.",
            next_step="Install the cluster's release on this machine, then join again.",
            differing={name: {"here": mine, "cluster": theirs} for name, mine, theirs in differing},
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How to start one provider node."""

    address: str
    """`host:port` of the cluster's head."""
    token_path: Path
    folder: Path
    """Private, short, existing: Ray's sockets and logs of this node."""
    agent_home: Path
    labels: NodeLabels
    num_gpus: int
    num_cpus: int = 1
    object_store_bytes: int = 80 << 20
    host: str | None = None
    """The address by which the cluster reaches this machine; None: Ray finds it."""


class RayNode:
    """A running provider node."""

    def __init__(self, process: RayProcess, settings: NodeSettings) -> None:
        self.process, self.settings = process, settings

    def alive(self) -> bool:
        """Whether its raylet's supervisor still runs."""
        return self.process.poll() is None

    def stop(self, grace_s: float = 5.0) -> int:
        """Leave the cluster and end every process of this node."""
        return self.process.stop(grace_s)


def start_node(settings: NodeSettings, timeout_s: float = START_TIMEOUT_S) -> RayNode:
    """Join the cluster: `ray start --address --block` below this process; returns when its raylet is registered.

    Raises: RayStartFailed with Ray's own words (unreachable, wrong token, other version), ValueError for a folder too long.
    """
    folder = settings.folder
    if len(str(folder)) > FOLDER_LENGTH_MAX:
        raise ValueError(
            f"{folder} is longer than {FOLDER_LENGTH_MAX} characters: Ray's socket paths would not fit; give a shorter runtime folder"
        )
    log = folder / "node.log"
    seen = log.stat().st_size if log.exists() else 0
    listen, grpc, env_agent = free_ports(3)
    arguments = [
        f"--address={settings.address}",
        f"--num-cpus={settings.num_cpus}",
        f"--num-gpus={settings.num_gpus}",
        f"--object-store-memory={settings.object_store_bytes}",
        f"--dashboard-agent-listen-port={listen}",
        f"--dashboard-agent-grpc-port={grpc}",
        f"--runtime-env-agent-port={env_agent}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={folder / 'r'}",
        f"--labels={to_text(settings.labels.build())}",
        f"--resources={json.dumps(settings.labels.resources(settings.num_gpus))}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    ]
    if settings.host is not None:
        arguments.append(f"--node-ip-address={settings.host}")
    environment = ray_environment(
        settings.token_path, {**_FEATURES, AGENT_HOME_VARIABLE: str(settings.agent_home), "TMPDIR": str(temporary_folder(folder))}
    )
    process = RayProcess(arguments, environment=environment, log=log, record=folder / "node.pids")
    deadline = time.monotonic() + timeout_s
    while _STARTED not in log.read_text(errors="replace")[seen:]:
        if process.poll() is not None or time.monotonic() > deadline:
            told = process.explain()
            process.stop(1.0)
            raise RayStartFailed(
                f"This machine could not join the Ray cluster at {settings.address}:\n{told}",
                next_step="Check address, token and firewall.",
            )
        time.sleep(0.1)
    process.members()
    return RayNode(process, settings)
