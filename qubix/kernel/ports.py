"""TCP ports for servers that are started in a moment."""

from __future__ import annotations

import collections
import random
import socket
from typing import Final

PORTS: Final = range(20_000, 30_000)
"""Below the range from which the kernel takes ports for outgoing connections (32768 up by default): what is bound only seconds
later, as HAProxy is, would find one of those taken."""
_given: collections.deque[int] = collections.deque(maxlen=1_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports that were free on all interfaces a moment ago, and that this process was not given lately.

    Raises: OSError, where there are not so many.
    """
    held: list[socket.socket] = []
    try:
        for port in random.sample(PORTS, len(PORTS)):
            if len(held) == count:
                break
            if port in _given:
                continue
            held.append(socket.socket())
            try:
                held[-1].bind(("", port))
            except OSError:
                held.pop().close()
        if len(held) < count:
            raise OSError(f"fewer than {count} TCP ports are free from {PORTS.start} to {PORTS.stop - 1}")
        found = [one.getsockname()[1] for one in held]
        _given.extend(found)
        return found
    finally:
        for one in held:
            one.close()


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
