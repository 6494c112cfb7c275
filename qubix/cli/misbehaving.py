"""What the demo's third job runs, inside the sandbox: a script that means harm and says what came of it. Not imported by anything.

Arguments: ports of 127.0.0.1 on which the platform listens.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable

FORKS_MAX = 20_000


def observe(what: str, harm: Callable[[], object]) -> None:
    """Try something forbidden and print, as one JSON line, whether it was prevented."""
    try:
        found, contained = repr(harm())[:60], False
    except OSError as error:
        found, contained = f"{type(error).__name__}: {error.strerror or error}", True
    print(json.dumps({"tried": what, "contained": contained, "found": found}), flush=True)


def read_passwords() -> str:
    """The machine's password hashes."""
    with open("/etc/shadow") as file:
        return file.read(40)


def connect(port: int) -> object:
    """A connection to one of the platform's own ports."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        return connection.getpeername()


def fork_without_end() -> int:
    """Processes that do nothing, until none more can be had."""
    count = 0
    while count < FORKS_MAX:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        count += 1
    return count


observe("read /etc/shadow", read_passwords)
for port in sys.argv[1:]:
    observe(f"connect to port {port}", lambda port=int(port): connect(port))  # type: ignore[misc]
observe("fork without end", fork_without_end)
sys.exit("nothing left to try")
