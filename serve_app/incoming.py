"""Room for bytes on their way: the PUTs of one attempt together stay within what it may store, on this replica.

What is kept in the end is judged again, exactly, when each PUT is recorded (qubix.scheduling.frames).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from qubix.kernel.errors import Limited, TooLarge


class Incoming:
    """Bytes that PUTs under way may still write, by attempt."""

    def __init__(self) -> None:
        self._taken: dict[UUID, int] = {}

    @contextlib.contextmanager
    def room(self, attempt_id: UUID, size_max_bytes: int, announced: int | None, *, of: int) -> Iterator[int]:
        """Hold room for one PUT, and give how much it may write.

        Args: size_max_bytes, of this PUT; announced, its length, None where it did not say; of, what the attempt may still
            store in all.
        Raises: TooLarge; Limited when there is room, but for what else is on its way.
        """
        size = size_max_bytes if announced is None else announced
        if size > size_max_bytes:
            raise TooLarge(f"the attempt may store {size_max_bytes} more bytes", next_step="leave it out", limit=size_max_bytes)
        taken = self._taken.get(attempt_id, 0)
        if taken and taken + size > of:
            raise Limited("other bytes of this attempt are on their way", next_step="send these after them", retry_after_s=1)
        self._taken[attempt_id] = taken + size
        try:
            yield size
        finally:
            rest = self._taken.pop(attempt_id, 0) - size
            if rest > 0:
                self._taken[attempt_id] = rest
