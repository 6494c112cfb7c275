"""Take checkpoints out of a running sandbox, a piece at a time.

The job's sdk renames a finished file into its checkpoint folder and says its name; from then on the job has no reason to
touch it. The copy is what counts: its bytes are hashed while they are copied, where the job cannot reach them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.sandbox.collect import Copy, NotTaken
from qubix.sandbox.events import CheckpointReady

UNSENT_MAX: Final = 2
"""As many copies may wait in the spool, named as here or by their hash, to be sent; further checkpoints wait inside, where they
count as the job's own disk use."""
OLDER_MAX: Final = 1
"""As many may wait inside behind the one that is next; of more, only the newest is worth its copy."""


@dataclass(frozen=True)
class Announced:
    """A checkpoint that the job has written."""

    name: str
    pct: float
    ran_ms: int


class Checkpoints:
    """Checkpoints of one attempt, numbered from 1 in the order in which they were copied."""

    def __init__(self, folder: int, spool: Path, prefix: str, size_max: int) -> None:
        """folder: descriptor of the job's checkpoint folder; size_max: bytes of one checkpoint."""
        self._folder, self._spool, self._prefix, self._size_max = folder, spool, prefix, size_max
        self._waiting: list[Announced] = []
        self._current: tuple[Announced, Copy] | None = None
        self._unsent: list[tuple[Path, Path]] = []
        self._number = 0
        self._finishing = False

    @property
    def busy(self) -> bool:
        """There is something to copy now."""
        return self._current is not None or (bool(self._waiting) and self._room())

    def announce(self, name: str, pct: float, ran_ms: int) -> None:
        """The job says that a checkpoint is complete."""
        self._waiting.append(Announced(name, pct, ran_ms))

    def finish(self) -> None:
        """The job has ended: the newest that waits is taken whatever lies in the spool, older ones are not needed."""
        self._finishing = True

    def advance(self) -> Iterator[CheckpointReady | str]:
        """Copy one piece; a checkpoint that is complete now, or a word for the log about one that cannot be taken."""
        if self._current is None:
            yield from self._begin()
        if self._current is None:
            return
        announced, copy = self._current
        try:
            if not copy.step():
                return
        except (NotTaken, OSError) as error:
            copy.abandon()
            yield f"checkpoint {announced.name} was not taken: {error}"
        else:
            self._number += 1
            self._unsent.append((copy.target, self._spool / copy.sha256))
            yield CheckpointReady(self._number, copy.target, copy.sha256, copy.size, announced.pct, announced.ran_ms)
        self._current = None
        self._drop(announced)

    def _begin(self) -> Iterator[str]:
        if not self._waiting or not self._room():
            return
        *older, newest = self._waiting
        if len(older) > OLDER_MAX or self._finishing:
            for announced in older:
                self._drop(announced)
            self._waiting = []
        else:
            newest = self._waiting.pop(0)
        try:
            self._current = (
                newest,
                Copy(self._folder, newest.name, self._spool / f"{self._prefix}-checkpoint-{self._number + 1}", self._size_max),
            )
        except (NotTaken, OSError) as error:
            self._drop(newest)
            yield f"checkpoint {newest.name} was not taken: {error}"

    def _room(self) -> bool:
        self._unsent = [names for names in self._unsent if any(path.exists() for path in names)]
        return self._finishing or len(self._unsent) < UNSENT_MAX

    def _drop(self, announced: Announced) -> None:
        with contextlib.suppress(OSError):
            os.unlink(announced.name, dir_fd=self._folder)
