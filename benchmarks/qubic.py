"""Qubic's signatures against their marks: a millisecond to sign, six to verify under a key that was seen before.

    python -m benchmarks.qubic [--signatures 200] [--rounds 5]

One thread. The figures are the medians of the rounds' medians; the marks are absolute, so a ratio is mark ÷ measured. A key is new once: its
case signs with a fresh key each time, and has no mark of its own.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from benchmarks._report import report
from qubix.chains.qubic import keys, signature

SIGN_MS_MAX: Final = 1.0
VERIFY_MS_MAX: Final = 6.0

Signed = tuple[bytes, bytes, bytes]
"""Public key, digest, signature."""


def new_signature() -> Signed:
    """A random digest, signed with a random key."""
    subseed, digest = secrets.token_bytes(32), secrets.token_bytes(32)
    public_key = keys.public_key_from_subseed(subseed)
    return public_key, digest, signature.sign(subseed, public_key, digest)


def median_ms(actions: Sequence[Callable[[], object]]) -> float:
    """The median time of some actions; every one must succeed."""
    taken = []
    for action in actions:
        began = time.perf_counter()
        succeeded = action()
        taken.append(time.perf_counter() - began)
        assert succeeded
    return statistics.median(taken) * 1000


def measure(signatures: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per case, one figure a round."""
    subseed = secrets.token_bytes(32)
    public_key = keys.public_key_from_subseed(subseed)
    found = defaultdict(list)
    for _ in range(rounds):
        strangers = [new_signature() for _ in range(signatures)]
        mine = [(public_key, digest, signature.sign(subseed, public_key, digest)) for _, digest, _ in strangers]
        signature.verify(*mine[0])
        found["sign"].append(median_ms([partial(signature.sign, subseed, public_key, digest) for _, digest, _ in mine]))
        found["verify known key"].append(median_ms([partial(signature.verify, *subject) for subject in mine]))
        found["verify new key"].append(median_ms([partial(signature.verify, *subject) for subject in strangers]))
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signatures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    marks: dict[str, tuple[float, float | None]] = {
        "sign": (SIGN_MS_MAX, 1),
        "verify known key": (VERIFY_MS_MAX, 1),
        "verify new key": (VERIFY_MS_MAX, None),
    }
    measured = measure(options.signatures, options.rounds)
    for case, (mark, reach) in marks.items():
        value = statistics.median(measured[case])
        against = "the mark" if reach else "the mark of a known key"
        report("qubic", case, value, "ms", against=against, against_value=mark, ratio=mark / value, reach=reach, per_s=round(1000 / value))


if __name__ == "__main__":
    main()
