"""The head of Qubix's own Ray cluster: free ports, a private short folder, token authentication, no other Ray touched.

Everything that binds a Unix socket lives under `folder`, which must be short (about 27 characters): socket paths end at about
100 bytes.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qubix.fabric.ingress import ingress_environment
from qubix.fabric.process import RayProcess, RayStartFailed, ray_environment, temporary_folder, write_token
from qubix.kernel.errors import Unavailable
from qubix.kernel.open_files import raise_limit
from qubix.kernel.ports import free_ports

FOLDER_LENGTH_MAX = 27
HEAD_RESOURCE = "qubix_head"
"""Only head machines have it; Serve's replicas and the hub ask for a thousandth of it each, and so stay off provider nodes."""
START_TIMEOUT_S = 120.0
CONNECTIONS_MAX = 50_000
"""Open connections of the ingress, WebSockets among them, where the limit of open files carries so many."""
_FILES_PER_CONNECTION = 2.5
_FILES_BESIDE = 200
_FEATURES = {
    # A SIGKILLed raylet is dead to the cluster after 3 missed checks; the defaults take 14 s.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "3",
    # The default keeps 100 000 finished tasks in the GCS, 100 MB: every call of the live hub's actor is one.
    "RAY_task_events_max_num_task_in_gcs": "2000",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A dead HAProxy is replaced after 3 failed checks; every 10 s, as by default, all agents would be cut off longer than a lease.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Ray's workers are the most patient processes of a machine (nice 15). Here they are the web layer: on a busy head it would be the last to run.
    "RAY_worker_niceness": "0",
    # Nothing waits for the dashboard, which gives way (qubix.fabric.ray_start): a head must not end because it comes late.
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    # A loaded machine needs longer than the default 5 s to start Serve's proxies; too early, they would be killed and started again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
}


@dataclass(frozen=True, slots=True)
class HeadAddress:
    """Where a head listens; what others need to join or attach. Holds no secret: the token is named by its file."""

    address: str
    dashboard_url: str
    token_path: str
    temp_dir: str
    gcs_port: int
    dashboard_port: int
    haproxy_stats_port: int
    haproxy_metrics_port: int
    serve_fallback_port: int


@dataclass(slots=True)
class Head:
    """A running head."""

    process: RayProcess
    where: HeadAddress
    environment: dict[str, str] = field(repr=False)
    """What a driver of this cluster (Serve's deployment, the fabric daemon) needs in its environment."""

    def alive(self) -> bool:
        """Whether it runs: `ray start --block` ends within a second or so when GCS, raylet or dashboard have ended."""
        return self.process.poll() is None

    def answers(self) -> bool:
        """Whether its GCS takes connections now. The dashboard comes later, and nothing of ours waits for it."""
        return head_answers(f"127.0.0.1:{self.where.gcs_port}")

    def stop(self, grace_s: float = 5.0) -> int:
        """End it and all of its processes."""
        return self.process.stop(grace_s)


def start_head(
    folder: Path,
    *,
    num_cpus: int = 2,
    object_store_bytes: int = 120 << 20,
    extra_environment: Mapping[str, str] = {},
    host: str = "127.0.0.1",
    again: HeadAddress | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Head:
    """Start a head and wait until its GCS answers.

    Args: as of `launch_head`; timeout_s, how long to wait.
    Raises: RayStartFailed, ValueError for a folder too long.
    """
    head = launch_head(
        folder, num_cpus=num_cpus, object_store_bytes=object_store_bytes, extra_environment=extra_environment, host=host, again=again
    )
    try:
        _await_answer(head, timeout_s)
    except BaseException:
        head.stop(1.0)
        raise
    return head


def launch_head(
    folder: Path,
    *,
    num_cpus: int = 2,
    object_store_bytes: int = 120 << 20,
    extra_environment: Mapping[str, str] = {},
    host: str = "127.0.0.1",
    again: HeadAddress | None = None,
) -> Head:
    """Start a head and do not wait: `answers` tells when it is up, `alive` whether it gave up.

    Args: folder, private, existing, short; num_cpus, what the web layer's actors may count on; extra_environment, inherited by
    Serve's replicas (paths only: every task can read it); host, the address that other nodes reach this machine by; again, where a head
    that has ended was: the new one takes its ports and its token, so whoever knew that one finds this one. It knows nobody, though:
    the state of a head is nowhere but in its memory.
    The soft limit of open files of this process is raised for it: the ingress and the replicas inherit it, a socket is a file there.
    Raises: ValueError for a folder too long.
    """
    if len(str(folder)) > FOLDER_LENGTH_MAX:
        raise ValueError(
            f"{folder} is longer than {FOLDER_LENGTH_MAX} characters: Ray's socket paths would not fit; give a shorter runtime folder"
        )
    token_path = folder / "ray.token"
    if not token_path.exists():
        write_token(token_path, secrets.token_hex(32))
    gcs, dashboard, agent, agent_grpc, *proxy_ports = free_ports(8)
    if again is not None:
        gcs, dashboard = again.gcs_port, again.dashboard_port
        proxy_ports[:3] = again.haproxy_stats_port, again.haproxy_metrics_port, again.serve_fallback_port
        # `ray start` refuses an address that this file names while any raylet of this machine still clings to it.
        (folder / "r" / "ray_current_cluster").unlink(missing_ok=True)
    proxy = folder / "p"
    proxy.mkdir(mode=0o700, exist_ok=True)
    own = {"TMPDIR": str(temporary_folder(folder))}
    connections = {"RAY_SERVE_HAPROXY_MAXCONN": str(connections_max(raise_limit()))}
    ingress = {**connections, **_proxy_environment(proxy, *proxy_ports), **ingress_environment(proxy)}
    dashboard_url = f"http://127.0.0.1:{dashboard}"
    asked = {"QUBIX_RAY_ADDRESS": f"{host}:{gcs}"}  # by the replicas' /health/ready
    environment = ray_environment(token_path, {**_FEATURES, **own, **ingress, **asked, **extra_environment})
    where = HeadAddress(f"{host}:{gcs}", dashboard_url, str(token_path), str(folder / "r"), gcs, dashboard, *proxy_ports[:3])
    process = RayProcess(
        [
            "--head",
            f"--port={gcs}",
            f"--node-ip-address={host}",
            f"--num-cpus={num_cpus}",
            "--num-gpus=0",
            f"--object-store-memory={object_store_bytes}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--temp-dir={where.temp_dir}",
            "--labels=qubix.role=head",
            f"--resources={json.dumps({HEAD_RESOURCE: 1000})}",
            "--include-dashboard=true",
            "--include-log-monitor=false",
            "--disable-usage-stats",
        ],
        environment=environment,
        log=folder / "head.log",
        record=folder / "head.pids",
    )
    (folder / "head.json").write_text(json.dumps(asdict(where)))
    driver = {k: v for k, v in environment.items() if k.startswith("RAY_")}
    return Head(process, where, driver)


def read_head(folder: Path) -> HeadAddress:
    """The address of the head that runs (or ran) in `folder`. Raises: FileNotFoundError."""
    return HeadAddress(**json.loads((folder / "head.json").read_text()))


def connections_max(files: int) -> int:
    """How many connections the ingress may have open where each process may have `files` open files.

    HAProxy counts two sockets and half a pipe for each; it does not start where its limit of files is lower than that (Ray's
    default of 4096 needs 10 276), and a connection past its maximum waits in the kernel, unanswered.
    """
    return max(1, min(CONNECTIONS_MAX, int((files - _FILES_BESIDE) / _FILES_PER_CONNECTION)))


def _proxy_environment(folder: Path, stats_port: int, metrics_port: int, fallback_port: int, fallback_grpc_port: int) -> dict[str, str]:
    """Keep HAProxy's files and ports, and those of Serve's own proxy behind it, apart from every other platform's on the machine."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc_port),
    }


def head_answers(address: str) -> bool:
    """Whether something takes connections at a head's `host:port`. Blocks for a second at most."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
        return True
    return False


def await_head(address: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until a head answers: Ray's own waiting takes half a minute at a time.

    Args: address, `host:port`; anything else that Ray takes (`auto`) is left to Ray. Raises: Unavailable.
    """
    if not address.rpartition(":")[2].isdigit():
        return
    deadline = time.monotonic() + timeout_s
    while not head_answers(address):
        if time.monotonic() > deadline:
            raise Unavailable(f"no Ray head answers at {address} for {timeout_s:.0f} s", next_step="qubix status; it is tried again")
        time.sleep(0.1)


def attach(join: Callable[[], object], *, timeout_s: float = START_TIMEOUT_S, pause_s: float = 0.5) -> None:
    """Join a head as a driver, again where Ray's own patience has ended.

    Ray looks a minute for the head's raylet, which starts after the GCS: on a loaded machine that is not long enough.

    Args: join, calls `ray.init`; timeout_s, until when it is tried again; pause_s, between tries. Raises: ConnectionError, the last.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            join()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause_s)
        else:
            return


def _await_answer(head: Head, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not head.answers():
        if not head.alive() or time.monotonic() > deadline:
            raise RayStartFailed(
                f"the Ray head did not come up within {timeout_s:.0f} s:\n{head.process.explain()}",
                next_step="See the log named in the message.",
            )
        time.sleep(0.1)
