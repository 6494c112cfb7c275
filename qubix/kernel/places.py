"""Where a platform keeps what lasts, unless it is told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """/var/lib/qubix for root, the user's share folder for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/qubix")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "qubix"
