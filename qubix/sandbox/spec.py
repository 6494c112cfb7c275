"""What a sandbox runs and what it may use: frozen values, no behaviour beyond checking them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from qubix.kernel.errors import Invalid

INPUT_NAME: Final = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\- ]*(/[A-Za-z0-9_\-][A-Za-z0-9_.\- ]*)*")
INPUTS_MAX: Final = 200
PARAMS_MAX_BYTES: Final = 64 << 10


class InvalidSpec(Invalid):
    """The specification cannot be run as it stands."""

    code = "invalid_sandbox_spec"


@dataclass(frozen=True)
class Limits:
    """What an attempt may use; the fields of the agent protocol's Limits."""

    memory_bytes: int = 2 << 30
    pids_max: int = 256
    cpus: float = 1.0
    disk_bytes: int = 2 << 30
    shm_bytes: int = 64 << 20
    tmp_bytes: int = 256 << 20
    log_bytes_max: int = 16 << 20


@dataclass(frozen=True)
class InputMount:
    """A file of the node, readable by everybody (mode 0644), that appears read-only as /job/<name>."""

    name: str
    path: Path


@dataclass(frozen=True)
class Program:
    """Trusted code of the installed jobs library: a folder, the file in it that starts, and the sdk's folder."""

    folder: Path
    entry: str
    sdk: Path


@dataclass(frozen=True)
class SandboxSpec:
    """One attempt.

    base: the agent's folder for its sandboxes, one per agent (state, locks, working volumes).
    spool: an existing folder; checkpoints and artefacts are copied there, and belong to the caller from then on.
    limit_ms: milliseconds of the monotonic clock until the attempt is killed.
    gpus: device nodes of the leased GPUs, such as /dev/nvidia0; visible_devices: the value of CUDA_VISIBLE_DEVICES.
    """

    attempt: UUID
    base: Path
    spool: Path
    program: Program
    limit_ms: int
    params: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[InputMount, ...] = ()
    restore: Path | None = None
    limits: Limits = Limits()
    gpus: tuple[str, ...] = ()
    visible_devices: str = ""
    progress_from: float = 0.0

    def check(self) -> None:
        """Refuse what could never run safely. Raises: InvalidSpec."""
        if self.limit_ms <= 0:
            raise InvalidSpec("limit_ms must be positive", next_step="Grant the attempt some time.")
        if len(self.inputs) > INPUTS_MAX:
            raise InvalidSpec(f"{len(self.inputs)} inputs, at most {INPUTS_MAX}", next_step="Put the files into one archive.")
        for entry in self.inputs:
            if not INPUT_NAME.fullmatch(entry.name) or len(entry.name) > 200:
                raise InvalidSpec(f"{entry.name!r} is no name for an input", next_step="Use letters, digits, '.', '_', '-' and '/'.")
        if len({entry.name for entry in self.inputs}) != len(self.inputs):
            raise InvalidSpec("two inputs have the same name", next_step="Rename one of them.")
        if sum(len(key) + len(value) for key, value in self.params.items()) > PARAMS_MAX_BYTES:
            raise InvalidSpec("the parameters are too large", next_step=f"Stay below {PARAMS_MAX_BYTES} bytes, or send a file as an input.")
        for gpu in self.gpus:
            if not re.fullmatch(r"/dev/[A-Za-z0-9_/-]+", gpu) or ".." in gpu:
                raise InvalidSpec(f"{gpu!r} is no device node", next_step="Name nodes such as /dev/nvidia0.")
