"""One Qubix on this machine: PostgreSQL, devnet, Ray head with Serve, controller, treasury, signer, web layer, fabric daemon.

Started in order, stopped in reverse.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from qubix.cli import runfile
from qubix.cli.chosen import chosen_settings
from qubix.cli.head_keeper import HeadKeeper
from qubix.cli.migrate import born_on, has_seeds, prepare
from qubix.cli.processes import Running, adopt_orphans, end, reap, seen, strays
from qubix.cli.scraping import ScrapeTargets
from qubix.cli.supervise import Child, end_all_below, look_after, make_runtime_dir
from qubix.fabric.head import Head, launch_head, start_head
from qubix.fabric.process import temporary_folder
from qubix.kernel.errors import Unavailable
from qubix.kernel.failpoints import FOLDER_VARIABLE
from qubix.kernel.ports import free_port
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.schema import ROLES
from qubix.treasury.seeds import make_key_file

READY_TIMEOUT_S: Final = 150.0
NETWORK: Final = "devnet"
"""Of a new data folder, unless another is chosen: real transactions of test money."""
DEVNET_REQUESTS_PER_S: Final = 500.0
"""The public endpoints are asked far less often; this one is ours alone."""
_INHERITED: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "SSL_CERT_FILE", "QUBIX_PG_BIN", FOLDER_VARIABLE)
_WATCH_INTERVAL_S: Final = 0.2
SIGNER_KEY: Final = "signer.key"
RAY_GRACE_S: Final = 1.0
"""Ray holds nothing that lasts, and `ray start --block` takes long over its goodbye: a second, then SIGKILL."""


@dataclass
class Plan:
    """What to start.

    Args: data_dir, all that lasts; host and port of the web layer, port 0 for a free one; settings, further QUBIX_ variables
        by name without the prefix, values as text; owner, a process whose end also ends the stack (the demo).
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    owner: Running | None = None


def keep_key(data_dir: Path, key: str) -> None:
    """Leave the first operator's key where whoever shows it once will take it; a start that fails later does not lose it."""
    with os.fdopen(os.open(data_dir / runfile.OPERATOR_KEY, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(key)


class Stack:
    """The running processes.

    Args: plan; say, told each step as it begins.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self.stopping = threading.Event()
        self.run = runfile.RunFile(supervisor=seen(os.getpid()))
        self._server: EmbeddedServer | None = None
        self._head: Head | None = None
        self._keeper: HeadKeeper[Head] | None = None
        self._children: list[Child] = []
        self._runtime: Path | None = None
        self._network = NETWORK
        self._chosen = chosen_settings(plan.settings)
        self._targets = ScrapeTargets(plan.data_dir / "prometheus")

    def start(self) -> None:
        """Bring everything up, in order; returns when the web layer says that it is ready.

        Raises: Unavailable (or what a part raised), after which `stop` must still be called.
        """
        adopt_orphans()
        data = self.plan.data_dir
        for folder in (data, data / "log", data / "secrets"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runtime = make_runtime_dir()
        self.run.runtime_dir = str(self._runtime)
        port = self.plan.port or free_port()
        self.run.urls["application"] = f"http://{self.plan.host}:{port}"
        self.run.ports["application"] = port
        self._record()
        self._start_database()
        self._start_devnet()
        self._start_ray(port)
        self._start_controller()
        self._start_treasury()
        self._start_web(port)
        self._start_fabric()
        self._await_ready()
        self._keep_head()

    def announce(self) -> None:
        """Tell other commands, through run.json, that it is ready."""
        self.run.state = "ready"
        self._record()

    def watch(self) -> None:
        """Keep it up until asked to stop (`stopping`), or its owner ends. Raises: Unavailable when no head of Ray stays up any more."""
        while not self.stopping.wait(_WATCH_INTERVAL_S):
            if self.plan.owner is not None and seen(self.plan.owner.pid) != self.plan.owner:
                return
            self._look_after_database()
            changed = [look_after(child, time.monotonic()) for child in self._children]
            if self._keeper is not None:
                changed.append(self._keeper.look(time.monotonic()))
                self._head = self._keeper.head
            if any(changed):
                self._record()
            reap(keep=self._own_pids())

    def stop(self) -> None:
        """Stop in reverse order, whatever had been started; nothing stays running, the runtime folder goes."""
        self.run.state = "stopping"
        with contextlib.suppress(OSError):  # a full disk, or a folder that is gone, must not keep them running
            self._record()
        for child in reversed(self._children):
            child.stop()
        if self._head is not None:
            self._head.stop(RAY_GRACE_S)
        if self._server is not None:
            self._server.stop()
        end_all_below()
        self._targets.clear()
        if self._runtime is not None:
            self._keep_logs(self._runtime)
            shutil.rmtree(self._runtime, ignore_errors=True)
        runfile.path_of(self.plan.data_dir).unlink(missing_ok=True)

    def _keep_logs(self, runtime: Path) -> None:
        """The replicas write below the runtime folder; what they said last outlives it, in the data folder."""
        kept = self.plan.data_dir / "log" / "serve"
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(OSError, shutil.Error):
            logs = runtime / "r" / "session_latest" / "logs"
            shutil.copytree(logs / "serve", kept)
            for spoken in logs.glob("worker-*.err"):
                if spoken.stat().st_size:
                    shutil.copy(spoken, kept)

    def _start_database(self) -> None:
        self.say("PostgreSQL")
        assert self._runtime is not None  # noqa: S101  (typing: start made it)
        self._server = EmbeddedServer(self.plan.data_dir, self._runtime)
        self._server.start()
        self.run.ports["postgres"] = self._server.port
        self._record()
        self.say("migrations")
        self._network = self.plan.settings.get("network") or born_on(self._server.url()) or NETWORK
        key = prepare(self._server.url(), self._network)
        if key:
            keep_key(self.plan.data_dir, key)
        for role in ROLES:
            self._server.write_url_file(role, self._url_file(role))

    def _start_devnet(self) -> None:
        """A simulated Qubic network, on a port that stays the same when it has to be started again."""
        if self._network != "devnet" or "qubic_rpc_urls" in self.plan.settings:
            return
        self.say("devnet")
        port = free_port()
        arguments = ["-m", "qubix.chains.qubic.devnet", "--data-dir", str(self.plan.data_dir / "devnet"), "--port", str(port)]
        arguments += ["--tick-s", str(self._chosen.devnet_tick_s)]
        self._add("devnet", arguments, ready="{").wait_until_ready(READY_TIMEOUT_S, self.stopping)
        self.run.urls["qubic"] = f"http://127.0.0.1:{port}"
        self.run.ports["qubic"] = port
        self._record()

    def _start_ray(self, port: int) -> None:
        self.say("Ray head")
        assert self._runtime is not None  # noqa: S101  (typing: start made it)
        self._head = start_head(self._runtime, extra_environment=self._web_environment(port))
        where = self._head.where
        self.run.urls["ray_dashboard"] = where.dashboard_url
        self.run.ports |= {"ray": where.gcs_port, "ray_dashboard": where.dashboard_port}
        self.run.ports |= {"haproxy_stats": where.haproxy_stats_port, "haproxy_metrics": where.haproxy_metrics_port}
        self.run.ports |= {"serve_fallback": where.serve_fallback_port}
        self.run.facts |= {"ray_address": where.address, "ray_token_file": where.token_path}
        self._targets.announce_ray(Path(where.temp_dir), where.haproxy_metrics_port)
        self._record()

    def _web_environment(self, port: int) -> dict[str, str]:
        """What Serve's replicas inherit from the head that carries them."""
        inherited = {"QUBIX_DATABASE_URL_FILE": str(self._url_file("qubix_web")), **self._settings(port), "QUBIX_LIVE_HUB": "ray"}
        return inherited | self._panels()

    def _keep_head(self) -> None:
        assert self._head is not None  # noqa: S101  (typing: start made it)
        port = self.run.ports["application"]

        def launch(ended: Head) -> Head:
            return launch_head(Path(self.run.runtime_dir), extra_environment=self._web_environment(port), again=ended.where)

        named = {child.name: child for child in self._children}
        self._keeper = HeadKeeper(
            self._head, launch, web=named["web"], drivers=[named["fabric"]], sweep=self._end_strays, say=self.say, now=time.monotonic()
        )

    def _end_strays(self) -> None:
        """What a head left behind when it was killed: its agents, its workers, HAProxy. They fell to this process, which adopts orphans."""
        end(strays(os.getpid(), self._own_pids()), grace_s=0.0)

    def _panels(self) -> dict[str, str]:
        """Whose panels Ray's dashboard shows. Ray writes its own dashboards for that Grafana below the data folder, where they outlive a start."""
        if not self._chosen.grafana_url:
            return {"RAY_GRAFANA_HOST": "DISABLED"}
        prometheus = {"RAY_PROMETHEUS_HOST": self._chosen.prometheus_url} if self._chosen.prometheus_url else {}
        return {"RAY_GRAFANA_HOST": self._chosen.grafana_url, "RAY_METRICS_OUTPUT_ROOT": str(self._targets.folder / "ray"), **prometheus}

    def _start_controller(self) -> None:
        self.say("controller")
        self._add("controller", ["-m", "qubix.controller"], "qubix_controller", ray=True)

    def _start_treasury(self) -> None:
        """What watches the chain, and what alone can sign for it."""
        if self._network == "none":
            return
        self.say("treasury and signer")
        key = self.plan.data_dir / "secrets" / SIGNER_KEY
        if not key.exists():
            assert self._server is not None  # noqa: S101  (typing: the database was started first)
            if has_seeds(self._server.url()):
                raise Unavailable(
                    f"the signer's key is not at {key}, and this ledger's seeds open by no other",
                    next_step="put your copy of it there, mode 0600",
                )
            make_key_file(key)
        self._add("treasury", ["-m", "qubix.treasurer"], "qubix_treasury")
        self._add("signer", ["-m", "qubix.signer"], "qubix_signer", extra={"QUBIX_SIGNER_KEY_FILE": str(key)})

    def _start_fabric(self) -> None:
        self.say("fabric daemon")
        self._add("fabric", ["-m", "qubix.fabric.daemon"], "qubix_fabric", ray=True)

    def _start_web(self, port: int) -> None:
        self.say("web layer")
        arguments = ["-m", "serve_app.deployment", "--host", self.plan.host, "--port", str(port)]
        child = self._add("web", arguments, "qubix_web", ready="ready", once=True, ray=True)
        child.wait_until_ready(READY_TIMEOUT_S, self.stopping)

    def _add(
        self,
        name: str,
        arguments: list[str],
        role: str | None = None,
        *,
        ready: str | None = None,
        once: bool = False,
        ray: bool = False,
        extra: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a process of ours. Args: role, of the database; ray, whether it may join the cluster, whose token lets it do anything there."""
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        environment |= self._settings(self.run.ports["application"]) | {"PYTHONUNBUFFERED": "1", **(extra or {})}
        if role is not None:
            environment["QUBIX_DATABASE_URL_FILE"] = str(self._url_file(role))
        if ray and self._head is not None:
            environment |= self._head.environment | {"QUBIX_LIVE_HUB": "ray"}
        environment["TMPDIR"] = str(temporary_folder(Path(self.run.runtime_dir)))
        child = Child(name, [sys.executable, *arguments], environment, self.plan.data_dir / "log" / f"{name}.log", ready=ready, once=once)
        child.start()
        self._children.append(child)
        self._record()
        return child

    def _settings(self, port: int) -> dict[str, str]:
        settings = {
            "QUBIX_DATA_DIR": str(self.plan.data_dir),
            "QUBIX_PUBLIC_URL": f"http://{self.plan.host}:{port}",
            "QUBIX_NETWORK": self._network,
            **self._chain_settings(),
            **{f"QUBIX_{name.upper()}": value for name, value in self.plan.settings.items()},
        }
        if self._head is not None:
            settings["QUBIX_RAY_ADDRESS"] = self._head.where.address
        return settings

    def _chain_settings(self) -> dict[str, str]:
        """Where the devnet is: two doors of one network, so that every verdict has its two witnesses."""
        if "qubic" not in self.run.urls:
            return {}
        url = self.run.urls["qubic"]
        return {
            "QUBIX_QUBIC_RPC_URLS": json.dumps([url, f"{url}/b"]),
            "QUBIX_QUBIC_REQUESTS_PER_S": str(DEVNET_REQUESTS_PER_S),
            "QUBIX_QUBIC_EXPLORER_URL": f"{url}/network",
        }

    def _url_file(self, role: str) -> Path:
        return self.plan.data_dir / "secrets" / f"{role}.url"

    def _await_ready(self) -> None:
        self.say("health")
        deadline = time.monotonic() + READY_TIMEOUT_S
        url = self.run.urls["application"] + "/health/ready"
        last = "no answer"
        while time.monotonic() < deadline and not self.stopping.is_set():
            try:
                answer = httpx.get(url, timeout=5)
                if answer.status_code == 200:
                    return
                last = answer.text[:300]
            except httpx.TransportError as error:
                last = str(error)
            time.sleep(0.2)
        raise Unavailable(f"the web layer is not ready: {last}", next_step=f"read the logs in {self.plan.data_dir / 'log'}")

    def _look_after_database(self) -> None:
        server = self._server
        if server is not None and server.process is not None and server.process.poll() is not None:
            self.say("PostgreSQL has ended; starting it again")
            server.start()
            self._record()

    def _own_pids(self) -> list[int]:
        owned = [child.process.pid for child in self._children if child.process is not None]
        if self._server is not None and self._server.process is not None:
            owned.append(self._server.process.pid)
        if self._head is not None:
            owned.append(self._head.process.pid)
        return owned

    def _record(self) -> None:
        found = {child.name: child.running for child in self._children}
        if self._server is not None and self._server.process is not None:
            found["postgres"] = seen(self._server.process.pid)
        if self._head is not None:
            found |= {f"ray/{member.pid}": seen(member.pid) for member in self._head.process.members()}
        self.run.processes = {name: process for name, process in found.items() if process is not None}
        runfile.write(self.plan.data_dir, self.run)
