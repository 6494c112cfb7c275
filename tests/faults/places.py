"""The places of the code at which a test can end its process, read from the source: a new one is found as soon as it is written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import qubix
import serve_app

SOURCES: Final = tuple(Path(package.__file__).parent for package in (qubix, serve_app))


def _reached(path: Path) -> Iterator[str]:
    """The names of the places in a file. A place without a literal name is an error: nothing could find it."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and "reach" in (getattr(called, "id", ""), getattr(called, "attr", "")):
            [name] = node.args
            assert isinstance(name, ast.Constant), f"{path}:{node.lineno}"
            yield str(name.value)


@cache
def _all() -> frozenset[str]:
    files = [path for source in SOURCES for path in source.rglob("*.py") if "kernel.failpoints import reach" in path.read_text()]
    return frozenset(name for path in files for name in _reached(path))


def places(*processes: str) -> list[str]:
    """The places of these processes, in order. Args: processes, as "treasury"; `scope` is the edge at which every process commits."""
    return sorted(name for name in _all() if not processes or name.partition(".")[0] in processes)
