"""Who asked a moment ago: for the public search alone, where the caller only decides which limit counts."""

from __future__ import annotations

import hashlib
from typing import Final

from qubix.identity.model import Principal
from qubix.kernel.clock import Clock

KEEP_S: Final = 10.0
CALLERS_MAX: Final = 10_000


class KnownCallers:
    """Credentials that were good within the last KEEP_S seconds, by their hash."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[Principal, float]] = {}

    def get(self, token: str) -> Principal | None:
        """The caller, None when it is not known, or no longer."""
        found = self._known.get(_hash(token))
        return found[0] if found is not None and found[1] > self._clock.monotonic() else None

    def add(self, token: str, caller: Principal) -> None:
        """Remember a caller that was just authenticated."""
        if len(self._known) >= CALLERS_MAX:
            self._known.clear()
        self._known[_hash(token)] = (caller, self._clock.monotonic() + KEEP_S)

    def forget(self) -> None:
        """Some session or key ended: ask the database again for everybody."""
        self._known.clear()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
