"""What a live platform shows to whoever looks at its processes, its logs and its answers: no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from qubix.cli import runfile
from tests.whole import PASSWORD, Consumer, Whole

pytestmark = pytest.mark.cluster
SECRET_MIN_BYTES = 12


def secrets_of(whole: Whole, consumer: Consumer) -> dict[str, bytes]:
    """Every secret that this platform knows of, by where it lies."""
    found = {"operator key": whole.operator_key, "consumer's key": consumer.client.http.headers["Authorization"].removeprefix("Bearer ")}
    found["password"] = PASSWORD
    run = runfile.read(whole.data_dir)
    assert run is not None
    found["Ray's token"] = Path(run.facts["ray_token_file"]).read_text().strip()
    for file in (whole.data_dir / "secrets").iterdir():
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


def test_no_process_and_no_log_of_a_live_platform_tells_a_secret(whole: Whole) -> None:
    consumer = Consumer(whole)
    job = consumer.run("import time\nprint('works', flush=True)\ntime.sleep(20)")
    consumer.until(job, lambda seen: seen["state"] == "RUNNING", 60)
    told: list[tuple[str, str]] = []
    secrets = secrets_of(whole, consumer)
    looked = 0
    for process in processes_of(whole):
        try:
            seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        looked += bool(seen)
        told += [(name, f"process {seen[:80]!r}") for name, secret in secrets.items() if secret in seen]
    consumer.client.post(f"/api/jobs/{job}/cancel", {})
    consumer.ended(job)
    run = runfile.read(whole.data_dir)
    assert run is not None
    files = [path for folder in (whole.folder, Path(run.runtime_dir)) for path in folder.rglob("*")]
    logs = [path for path in files if path.is_file() and path.suffix in (".log", ".out", ".err")]
    for path in logs:
        content = path.read_bytes()
        told += [(name, str(path)) for name, secret in secrets.items() if secret in content]
    assert looked > 15
    assert len(logs) > 5
    assert told == []
