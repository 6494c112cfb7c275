"""How many files, sockets among them, this process and its children may have open."""

from __future__ import annotations

import resource
from typing import Final

OPEN_FILES_MAX: Final = 131_072
"""No more is asked for, where the system would give a million: programs exist that close every number up to the limit."""


def raise_limit() -> int:
    """Ask for as many as the system grants without a privilege: a shell's soft limit is often 1024. Returns: how many that are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted_limit(soft, hard)
    if wanted != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return OPEN_FILES_MAX if wanted == resource.RLIM_INFINITY else wanted


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to set where these two stand: never a lower one."""
    if soft == resource.RLIM_INFINITY:
        return soft
    granted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    return max(soft, granted)
