"""The secrets of a live platform, and what it shows to whoever looks at its processes and logs: for tests that look for the one in the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from qubix.cli import runfile
from tests.whole import Whole

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


def lines_and_environments(whole: Whole) -> list[tuple[bytes, bytes]]:
    """Of each process, its command line and its environment."""
    found = []
    for process in processes_of(whole):
        try:
            found.append((Path(f"/proc/{process.pid}/cmdline").read_bytes(), Path(f"/proc/{process.pid}/environ").read_bytes()))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    assert len([line for line, _ in found if line]) > 15
    return found


def logs_of(whole: Whole) -> list[tuple[str, bytes]]:
    """Every log of the platform, of its machines and of Ray: its path and what it says."""
    run = runfile.read(whole.data_dir)
    assert run is not None
    folders = [whole.folder, Path(run.runtime_dir)]
    for machine in whole.machines.values():
        of_machine = runfile.read(machine.home)
        assert of_machine is not None
        folders.append(Path(of_machine.runtime_dir))
    found = [(str(path), content) for folder in folders for path, content in files_of(folder) if path.suffix in (".log", ".out", ".err")]
    assert len(found) > 20
    return found


def files_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file below a folder, and what it says; what vanishes meanwhile is left out."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()


def told(secrets: Mapping[str, bytes], shown: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Which secret stands where. Args: shown, where and what."""
    return [(name, where) for where, content in shown for name, secret in secrets.items() if secret in content]
