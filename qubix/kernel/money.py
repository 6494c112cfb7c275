"""Money is an integer of whole units; a float never enters.

The formulas are those of the money scheme: charges are rounded down once per attempt, the fee is taken at maturity.
"""

from __future__ import annotations

import enum
from typing import Final, NewType

Qu = NewType("Qu", int)
"""An amount of an asset in its smallest unit (QUBIC: whole units; USDC: micro-units)."""

MS_PER_HOUR: Final = 3_600_000
BPS_ONE: Final = 10_000
AMOUNT_MAX: Final = 2**63 - 1
"""The largest amount that the ledger's bigint columns can hold."""


class Asset(enum.IntEnum):
    """What an account is denominated in; the value is the row in `assets`."""

    QUBIC = 1
    USDC = 2


def written(amount: int) -> str:
    """An amount as people read it, here and in every message: `12 345 QU`."""
    return f"{amount:,} QU".replace(",", " ")


def charge(rate: Qu, ran_ms: int, left: Qu) -> Qu:
    """What `ran_ms` of use costs: `min(rate × ms // 3 600 000, left)`.

    Args: rate, units per hour; ran_ms, metered milliseconds; left, what remains of the escrow's funding.
    Returns: whole units, rounded down once. Live earnings and settlement both use this function.
    Raises: ValueError for a negative argument.
    """
    if rate < 0 or ran_ms < 0 or left < 0:
        raise ValueError("rate, time and remaining funds are never negative")
    return Qu(min(rate * ran_ms // MS_PER_HOUR, left))


def limit_ms(left: Qu, rate: Qu) -> int:
    """How long `left` pays for at `rate`: `left × 3 600 000 // rate` milliseconds.

    Raises: ValueError unless rate is positive and left is not negative.
    """
    if rate <= 0 or left < 0:
        raise ValueError("the rate must be positive and the remaining funds not negative")
    return left * MS_PER_HOUR // rate


def ceiling(rate: Qu, duration_s: int) -> Qu:
    """The most that `duration_s` seconds at `rate` units per hour can cost, rounded up so the duration fits.

    Raises: ValueError for a negative argument.
    """
    if rate < 0 or duration_s < 0:
        raise ValueError("rate and duration are never negative")
    return Qu(-(-rate * duration_s // 3600))


def fee(gross: Qu, bps: int) -> Qu:
    """The platform's part of `gross`: `gross × bps // 10 000`.

    Raises: ValueError unless 0 <= bps <= 10 000 and gross is not negative.
    """
    if not 0 <= bps <= BPS_ONE or gross < 0:
        raise ValueError("the fee is between 0 and 10 000 basis points of an amount that is not negative")
    return Qu(gross * bps // BPS_ONE)
