"""What a live platform shows to whoever looks at its processes, its logs and its answers: no secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from qubix.cli import runfile
from tests.whole import PASSWORD, Consumer, Whole

pytestmark = pytest.mark.cluster
SECRET_MIN_BYTES = 12


def secrets_of(whole: Whole) -> dict[str, bytes]:
    """Every secret that lies in the platform's folders, by its file."""
    run = runfile.read(whole.data_dir)
    assert run is not None
    found = {"operator key": whole.operator_key, "Ray's token": Path(run.facts["ray_token_file"]).read_text().strip()}
    tokens = (whole.data_dir / "devnet").glob("*token*")
    for file in [*(whole.data_dir / "secrets").iterdir(), *tokens]:
        text = file.read_text().strip()
        found[file.name] = (urlsplit(text).password or text) if "://" in text else text
    assert all(len(secret) >= SECRET_MIN_BYTES for secret in found.values())
    return {name: secret.encode() for name, secret in found.items()}


def processes_of(whole: Whole) -> Iterator[psutil.Process]:
    """The platform's processes and the machines'."""
    run = runfile.read(whole.data_dir)
    assert run is not None
    assert run.supervisor is not None
    supervisor = psutil.Process(run.supervisor.pid)
    yield from [supervisor, *supervisor.children(recursive=True)]
    for machine in whole.machines.values():
        yield from machine.tree()


def told_by_processes(whole: Whole, secrets: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Which secret stands in which process's command line or environment."""
    told: list[tuple[str, str]] = []
    looked = 0
    for process in processes_of(whole):
        try:
            seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        looked += bool(seen)
        told += [(name, f"process {seen[:80]!r}") for name, secret in secrets.items() if secret in seen]
    assert looked > 15
    return told


def told_by_logs(whole: Whole, secrets: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Which secret stands in which log."""
    run = runfile.read(whole.data_dir)
    assert run is not None
    files = [path for folder in (whole.folder, Path(run.runtime_dir)) for path in folder.rglob("*")]
    logs = [path for path in files if path.is_file() and path.suffix in (".log", ".out", ".err")]
    assert len(logs) > 5
    contents = [(str(path), path.read_bytes()) for path in logs]
    return [(name, path) for path, content in contents for name, secret in secrets.items() if secret in content]


def test_no_process_and_no_log_of_a_live_platform_tells_a_secret(whole: Whole) -> None:
    consumer = Consumer(whole)
    job = consumer.run("import time\nprint('works', flush=True)\ntime.sleep(20)")
    consumer.until(job, lambda seen: seen["state"] == "RUNNING", 60)
    key = consumer.client.http.headers["Authorization"].removeprefix("Bearer ")
    secrets = {**secrets_of(whole), "consumer's key": key.encode(), "password": PASSWORD.encode()}
    told = told_by_processes(whole, secrets)
    consumer.client.post(f"/api/jobs/{job}/cancel", {})
    consumer.ended(job)
    assert told + told_by_logs(whole, secrets) == []
