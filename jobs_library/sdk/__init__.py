"""What a job imports: `import qubix_job`. Standard library only; works outside a sandbox too, where it reports to nobody.

    import qubix_job as job

    epochs = int(job.params.get("epochs", "5"))
    start = job.restored()                              # Path of the checkpoint to resume from, or None
    for epoch in range(epochs):
        ...
        job.progress(100 * (epoch + 1) / epochs, f"epoch {epoch + 1}")
        job.checkpoint("state.pt", pct=100 * (epoch + 1) / epochs)
    Path(job.output_dir, "model.pt").write_bytes(...)   # every file there becomes an artefact of the job

A stopped job first gets SIGTERM; handle it to save a last checkpoint.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["checkpoint", "checkpoint_dir", "input_dir", "output_dir", "params", "progress", "restore_failed", "restored"]

params: Final[Mapping[str, str]] = json.loads(os.environ.get("QUBIX_PARAMS", "{}"))
"""The job's parameters, as text."""
input_dir: Final = Path(os.environ.get("QUBIX_INPUT_DIR", "."))
"""Where the job's inputs lie, read-only."""
output_dir: Final = Path(os.environ.get("QUBIX_OUTPUT_DIR", "."))
"""What is written here becomes the job's artefacts; it is also the working folder at the start."""
checkpoint_dir: Final = Path(os.environ.get("QUBIX_CHECKPOINT_DIR", ".checkpoints"))
"""A checkpoint written here, under any name that is not a number, is handed over without a copy."""

_PROGRESS_EVERY_S: Final = 0.05
_MESSAGE_MAX_BYTES: Final = 4096
_numbers = itertools.count(1)
_reported_at = [float("-inf")]


def progress(pct: float, operation: str = "") -> None:
    """Report progress, 0 to 100, and what is being done. Cheap: more than 20 reports a second are thinned out."""
    now = time.monotonic()
    if pct < 100 and now - _reported_at[0] < _PROGRESS_EVERY_S:
        return
    _reported_at[0] = now
    _send({"pct": _within(pct), "operation": operation[:200]})


def checkpoint(path: str | os.PathLike[str], pct: float) -> None:
    """Hand over the file `path` as a checkpoint at `pct` percent.

    When this returns, `path` is free again: the file was renamed (from checkpoint_dir) or copied, and the copy on disk is
    complete. The platform numbers it and stores it elsewhere; an attempt after a failure finds the newest by restored().
    Raises: OSError when the disk limit is reached.
    """
    source = Path(path)
    checkpoint_dir.mkdir(exist_ok=True)
    name = str(next(_numbers))
    if source.resolve().parent == checkpoint_dir.resolve():
        source.rename(checkpoint_dir / name)
    else:
        part = checkpoint_dir / f".part-{name}"
        shutil.copyfile(source, part)
        part.rename(checkpoint_dir / name)
    _send({"checkpoint": name, "pct": _within(pct)})


def restored() -> Path | None:
    """The checkpoint to resume from, or None: start from the beginning."""
    found = os.environ.get("QUBIX_RESTORE")
    return Path(found) if found else None


def restore_failed(reason: str) -> None:
    """Say that the checkpoint of restored() cannot be used; then start from the beginning. Whoever wrote it is not paid for it."""
    _send({"restore_failed": reason[:1000]})


def _within(pct: float) -> float:
    return min(100.0, max(0.0, float(pct)))


def _send(message: dict[str, object]) -> None:
    descriptor = os.environ.get("QUBIX_CONTROL_FD")
    if not descriptor:
        return
    line = json.dumps(message).encode() + b"\n"
    if len(line) <= _MESSAGE_MAX_BYTES:
        os.write(int(descriptor), line)
