"""Places where a test ends the process: `kill -9` between any two writes, at a moment that is chosen and not met by chance."""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "QUBIX_FAILPOINT"
"""`name`, or `name:n` for the n-th time that the place is reached. Unset in production: nothing happens then.

`name:n:stop` freezes the process there instead, so that a test can end another one, such as the database, and let it go on (SIGCONT)."""

FOLDER_VARIABLE: Final = "QUBIX_FAILPOINT_FOLDER"
"""A folder in which a test arms places of processes that run already: a file `name` strikes whichever process comes there first, a file
`name@pid` that one alone. What struck is renamed to `….struck`, so each file strikes once. Unset in production."""


class Failpoint:
    """One armed place. Args: setting, as in VARIABLE; empty arms none. Raises: ValueError for a number that is none, or below 1."""

    def __init__(self, setting: str) -> None:
        self.name, _, how = setting.partition(":")
        times, _, deed = how.partition(":")
        self._left = int(times) if times else 1
        if self._left < 1:
            raise ValueError(f"{VARIABLE} counts from 1")
        if deed not in ("", "stop"):
            raise ValueError(f"{VARIABLE} kills, or stops")
        self.deed = signal.SIGSTOP if deed else signal.SIGKILL

    def reach(self, name: str) -> bool:
        """Count one arrival at `name`. Returns whether it is the one at which the process is to end."""
        if name != self.name:
            return False
        self._left -= 1
        return self._left == 0


_ARMED: Final = Failpoint(os.environ.get(VARIABLE, ""))
_FOLDER: Final = os.environ.get(FOLDER_VARIABLE, "")


def reach(name: str) -> None:
    """Say that the program is at `name`; ends the process by SIGKILL, with no time to tidy up, where a test has armed that place.

    Args: name, as "treasury.credited": the process, and what it has just done.
    """
    if _ARMED.name and _ARMED.reach(name):
        os.kill(os.getpid(), _ARMED.deed)
    if _FOLDER and (_strikes(name) or _strikes(f"{name}@{os.getpid()}")):
        os.kill(os.getpid(), signal.SIGKILL)


def _strikes(file: str) -> bool:
    try:
        os.rename(f"{_FOLDER}/{file}", f"{_FOLDER}/{file}.struck")
    except FileNotFoundError:
        return False
    return True
