"""Library jobs run in a real sandbox, with the packages of this installation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from qubix.sandbox.events import ArtefactReady, CheckpointReady, Ended, LogText, ProgressReport, RestoreFailed, SandboxEvent
from qubix.sandbox.run import run
from qubix.sandbox.runtime import locate
from qubix.sandbox.spec import InputMount, Limits, SandboxSpec

LIMITS = Limits(memory_bytes=3 << 30, disk_bytes=256 << 20, cpus=1.0)


@dataclass
class Attempt:
    """What one run of a job told."""

    text: str = ""
    ended: Ended | None = None
    progress: list[ProgressReport] = field(default_factory=list)
    checkpoints: list[CheckpointReady] = field(default_factory=list)
    artefacts: dict[str, bytes] = field(default_factory=dict)
    restore_failed: list[RestoreFailed] = field(default_factory=list)

    def take(self, event: SandboxEvent) -> None:
        match event:
            case LogText():
                self.text += event.text
            case ProgressReport():
                self.progress.append(event)
            case CheckpointReady():
                event.path.rename(event.path.with_suffix(".taken"))
                self.checkpoints.append(event)
            case ArtefactReady():
                self.artefacts[event.name] = event.path.read_bytes()
            case RestoreFailed():
                self.restore_failed.append(event)
            case Ended():
                self.ended = event

    def checkpoint_file(self, number: int) -> Path:
        return next(event.path.with_suffix(".taken") for event in self.checkpoints if event.number == number)


class Bench:
    """Runs jobs below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "spool").mkdir()

    def run(
        self, kind: str, params: Mapping[str, str], *, inputs: Mapping[str, Path] | None = None, restore: Path | None = None
    ) -> Attempt:
        for path in (inputs or {}).values():
            path.chmod(0o644)
        if restore is not None:
            restore.chmod(0o644)
        spec = SandboxSpec(
            uuid4(),
            self.folder / "base",
            self.folder / "spool",
            locate(kind),
            limit_ms=300_000,
            params=params,
            inputs=tuple(InputMount(name, path) for name, path in (inputs or {}).items()),
            restore=restore,
            limits=LIMITS,
        )
        attempt = Attempt()
        for event in run(spec):
            attempt.take(event)
        return attempt


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "base").mkdir()
    return Bench(folder)
