"""The application under Ray Serve: replicas on head machines alone, behind the HAProxy ingress.

`python -m serve_app.deployment --host … --port …` deploys into the cluster that the settings name, prints `ready <url>`, and
exits 0; the replicas live on in the cluster. Settings and the database's URL file come from the environment of `ray start`,
which names paths of files of mode 0600 and holds no secret.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import ray
from fastapi import FastAPI
from ray import serve

from qubix import observability
from qubix.fabric.head import attach, await_head
from qubix.kernel.errors import Unavailable
from qubix.kernel.ids import new_id
from qubix.settings import Settings

if TYPE_CHECKING:
    from qubix.bootstrap import Resources

APPLICATION: Final = "qubix"
HEAD_RESOURCE: Final = "qubix_head"
ONGOING_MAX: Final = 20_000
"""At least the sockets per replica: a WebSocket is one ongoing request."""
MESSAGES_WAITING_MAX: Final = 4
"""Pieces of a body (what uvicorn has when it is asked: 64 to 320 KiB), or frames of a socket, that wait for the application."""
READY_TIMEOUT_S: Final = 150.0
GRACEFUL_S: Final = 5.0


def _resources() -> Resources:
    from qubix.bootstrap import open_resources

    settings = Settings()
    observability.configure(level=settings.log_level)
    return open_resources(settings, hub=_hub(settings))


def _hub(settings: Settings) -> Any:
    from qubix.live.hub import LiveHub, LocalRelay

    if settings.live_hub == "local":
        return LiveHub(new_id().hex, LocalRelay())
    from qubix.fabric.hub import RayRelay

    return LiveHub(new_id().hex, RayRelay())


def build() -> FastAPI:
    """The application, built inside the replica: nothing of it is pickled, and nothing of it loaded by who deploys it or by Serve's controller."""
    gc.disable()  # what is loaded stays: to look through it while it grows is a fifth of the time until the replica answers
    try:
        from serve_app.app import create_app

        bound_bodies()
        return create_app(_resources(), export=True)
    finally:
        gc.freeze()
        gc.enable()


def bound_bodies() -> None:
    """Let a slow reader slow its sender.

    Serve's direct ingress pumps a request's body into a queue without a bound, as fast as the socket gives it: an upload of
    500 MB would pass through the replica's memory whole. With a bound the pump waits, and TCP holds the sender back. Only
    where user code shares the pump's event loop (RAY_SERVE_THROUGHPUT_OPTIMIZED): across threads the pump cannot wait.
    """
    from ray.serve._private import constants, direct_ingress_http_util

    if constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD:
        return

    def queue(proxy: Any) -> asyncio.Queue[Any]:
        if proxy._queue is None:
            proxy._queue = asyncio.Queue(MESSAGES_WAITING_MAX)
        found: asyncio.Queue[Any] = proxy._queue
        return found

    direct_ingress_http_util.ASGIDIReceiveProxy.queue = property(queue)  # type: ignore[assignment,method-assign]


@serve.deployment(
    name="web",
    max_ongoing_requests=ONGOING_MAX,
    health_check_period_s=2,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=GRACEFUL_S,
    ray_actor_options={"num_cpus": 0.1, "resources": {HEAD_RESOURCE: 0.001}},
)
@serve.ingress(build)
class Ingress:
    """The application in a replica."""

    async def check_health(self) -> None:
        """Unhealthy only when the event loop is stuck; a database that is away must not take every replica down."""
        await asyncio.sleep(0)


def deploy(settings: Settings, *, host: str, port: int, replicas: int = 1) -> str:
    """Deploy into the cluster and wait until it answers. A head that is still starting is waited for.

    Args: host and port, where the ingress listens. Returns: the URL. Raises: Unavailable.
    """
    if settings.ray_address:
        await_head(settings.ray_address)
    attach(lambda: ray.init(address=settings.ray_address or None, namespace="serve", log_to_driver=False, logging_level=logging.WARNING))
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
    serve.run(Ingress.options(num_replicas=replicas).bind(), name=APPLICATION, route_prefix="/")  # type: ignore[attr-defined]
    url = f"http://{host}:{port}"
    _await(f"{url}/health/live")
    return url


def _await(url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise Unavailable(f"the web layer does not answer at {url}", next_step="read Serve's logs in Ray's session folder")


def main() -> None:
    """Entry point of the command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", "--http-port", dest="port", type=int, default=8080)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    url = deploy(Settings(), host=options.host, port=options.port, replicas=options.replicas)
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()
    # The replicas are detached; leaving without Ray's shutdown hooks saves seconds and disturbs nothing.
    os._exit(0)


if __name__ == "__main__":
    main()
