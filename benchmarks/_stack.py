"""A fresh platform for one run, as `qubix up` starts it: real PostgreSQL, Ray with Serve, controller, fabric daemon."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qubix.cli import runfile, up
from qubix.cli.account import sign_up
from qubix.cli.processes import end
from qubix.cli.runfile import RunFile
from qubix.cli.supervise import start_and_wait


@dataclass(frozen=True)
class Platform:
    """Args: folder, its data; run, its ports and URLs; operator_key, of an operator, whose requests are not limited."""

    folder: Path
    run: RunFile
    operator_key: str

    @property
    def url(self) -> str:
        """Where the web layer answers."""
        return self.run.urls["application"]

    @property
    def supervisor_pid(self) -> int:
        """The process below which all of the platform runs."""
        assert self.run.supervisor is not None
        return self.run.supervisor.pid

    def account(self, name: str) -> str:
        """Sign somebody up. Returns: an API key."""
        account, _ = sign_up(self.url, f"{name}@qubix.example", secrets.token_urlsafe(16))
        return account.api_key

    def database_url(self, role: str) -> str:
        """The database as one role sees it."""
        return (self.folder / "secrets" / f"{role}.url").read_text().strip()

    @contextlib.contextmanager
    def node(self, name: str, gpu: str, price: int, provider_key: str) -> Iterator[None]:
        """Join one machine as `qubix provider join` does; it leaves at the end."""
        config = self.folder / f"{name}.json"
        config.write_text(f'{{"url": "{self.url}", "api_key": "{provider_key}"}}')
        config.chmod(0o600)
        home = self.folder / name
        line = [sys.executable, "-m", "qubix.cli.main", "provider", "join", "--home", str(home), "--data-dir", str(self.folder)]
        line += ["--name", name, "--declare-gpu", gpu, "--price", str(price), "--owner-pid", str(os.getpid())]
        start_and_wait(line, home, f"the node {name}", extra={"QUBIX_CONFIG": str(config)})
        try:
            yield
        finally:
            member = runfile.read(home)
            if member is not None and member.supervisor is not None:
                end([member.supervisor], grace_s=20.0)


@contextlib.contextmanager
def platform(**settings: str) -> Iterator[Platform]:
    """Start a platform in a folder of its own; it ends with this process at the latest."""
    folder = Path(tempfile.mkdtemp(prefix="qubix-bench-"))
    try:
        run, key = up.start_detached(folder, settings={"network": "none", **settings}, owner=os.getpid())
        assert key is not None
        yield Platform(folder, run, key)
    finally:
        up.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
