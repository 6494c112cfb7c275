"""A terminal that has the command line loaded already: every command that it is given runs as a process of its own.

One JSON line in: {"id", "argv", "environment", "folder", "out", "err"}; one out, when that command has ended: [id, exit code]. Importing the command line takes a second of
computing; a hundred commands would spend a hundred of them on nothing that a test is about.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

from qubix.cli import main as command_line

LOOK_S = 0.02


def become(asked: dict[str, Any]) -> None:
    """Turn this process into one that was started with that command line."""
    for number, path, flags in (
        (0, "/dev/null", os.O_RDONLY),
        (1, asked["out"], os.O_WRONLY | os.O_CREAT),
        (2, asked["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), number)
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["qubix", *asked["argv"]]


def main() -> None:
    """Entry point."""
    running: dict[int, int] = {}
    waiting = b""
    while True:
        if select.select([0], [], [], LOOK_S if running else None)[0]:
            piece = os.read(0, 1 << 16)
            if not piece:
                return None
            waiting += piece
        *lines, waiting = waiting.split(b"\n")
        for line in lines:
            asked = json.loads(line)
            pid = os.fork()
            if pid == 0:
                become(asked)
                return command_line.main()
            running[pid] = asked["id"]
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                os.write(1, json.dumps([running.pop(pid), os.waitstatus_to_exitcode(status)]).encode() + b"\n")


if __name__ == "__main__":
    main()
