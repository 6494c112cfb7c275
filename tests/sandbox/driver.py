"""Run one sandbox in a process of its own and print its events as JSON lines; the specification comes on standard input."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[2]))

from qubix.sandbox.run import run
from qubix.sandbox.spec import InputMount, Limits, Program, SandboxSpec


def read(content: dict[str, Any]) -> SandboxSpec:
    return SandboxSpec(
        attempt=UUID(content["attempt"]),
        base=Path(content["base"]),
        spool=Path(content["spool"]),
        program=Program(Path(content["program"]), content.get("entry", "main.py"), Path(content["sdk"])),
        limit_ms=content["limit_ms"],
        params=content["params"],
        inputs=tuple(InputMount(name, Path(path)) for name, path in content["inputs"].items()),
        restore=Path(content["restore"]) if content.get("restore") else None,
        limits=Limits(**content["limits"]),
    )


def main() -> None:
    content = json.loads(sys.stdin.readline())
    for event in run(read(content), inherit_fds=content["inherit_fds"]):
        print(json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}, default=str), flush=True)


if __name__ == "__main__":
    main()
