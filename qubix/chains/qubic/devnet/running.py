"""Run the devnet: one process, one folder, one port."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import admin, server
from qubix.chains.qubic.devnet.faults import Faults
from qubix.chains.qubic.devnet.network import FAUCET_SEED, Network
from qubix.kernel.errors import Conflict

HOST: Final = "127.0.0.1"
PORT: Final = 21_841
"""The port of Qubic's nodes."""
TICK_S: Final = 1.0
_CONNECTIONS_MAX: Final = 512


@dataclass(frozen=True)
class Options:
    """How to run it.

    Args: data_dir, where it keeps its file; host and port, where it listens (port 0: any free one); tick_s, seconds from tick to tick, 0:
        only when the admin steps; admin_token_file, a file of mode 0600, made in data_dir if none is named; seed, of the faults; legacy,
        whether the two paths that end with 2026 are there.
    """

    data_dir: Path
    host: str = HOST
    port: int = PORT
    tick_s: float = TICK_S
    admin_token_file: Path | None = None
    seed: str = "qubix"
    legacy: bool = False


@dataclass(frozen=True)
class Running:
    """Where it is, as JSON tells it."""

    url: str
    faucet: str
    faucet_seed: str
    admin_token_file: str
    tick: int


def run(options: Options, started: Callable[[Running], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `started` is called once requests are taken.

    Raises: Conflict if the folder or the port is another's; Invalid for a bad token file.
    """
    token_file = options.admin_token_file or options.data_dir / admin.TOKEN_FILE
    token = admin.token_of(token_file, make=options.admin_token_file is None)
    network = Network.open(options.data_dir, faults=Faults(options.seed))
    with contextlib.closing(network), contextlib.closing(_listen(options)) as listening:
        app = server.create_app(network, tick_s=options.tick_s, admin=admin.routes(network, token), legacy=options.legacy)
        # Broken answers are what it is for: uvicorn's complaints about them would only hide what matters.
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="on",
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_graceful_shutdown=1,
        )
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        faucet = identity.encode(network.faucet_key)
        serving = uvicorn.Server(config)

        def end(*_: object) -> None:
            serving.should_exit = True

        # For a signal that comes before uvicorn listens to it, and the one that it raises once more at its end: no death by signal.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, end)
        started(Running(url, faucet, FAUCET_SEED, str(token_file), network.ledger.tick))
        serving.run(sockets=[listening])


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=_CONNECTIONS_MAX)
    except OSError as error:
        raise Conflict(f"cannot listen on {options.host}:{options.port}: {error.strerror}", next_step="--port names another one") from error
