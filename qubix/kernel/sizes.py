"""Sizes of memory as people write them.

A card that is sold as 24 GB has 24 × 2^30 bytes, less what its driver and error correction keep (an RTX 4090 reports 24 564 MiB, an L4
23 034 MiB): more than 24 × 10^9 in any case. So `24GB` means whatever lies between 24 × 10^9 and 24 × 2^30 bytes, and a card's bytes
are shown as the size that it is sold as. `24GiB` means exactly 24 × 2^30.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

ALLOWED: Final = ("B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")
WANTED: Final = "a size such as 24GB or 512MB"
SIZE_MAX: Final = 1 << 62
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*(?:([KMGT])(i?)B?|(B))?\s*", re.IGNORECASE | re.ASCII)
_SOLD_AS: Final = (
    *(2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180),
    *(192, 256, 288, 384, 512, 768, 1024, 1536, 2048),
)
"""GB of the cards, and of the machines' RAM, that are sold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What a written size covers, in bytes: `least` to `most`, both included; the same for an exact one."""

    least: int
    most: int


def parse_size(text: str) -> Size:
    """Read `24GB`, `24 GB`, `512MiB`; a bare number is GB. Raises: ValueError, saying what is wanted."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(WANTED)
    whole, _, part = str(found[1]).partition(".")
    if found[4]:
        edges = (1, 1)
    else:
        power = _POWERS[(found[2] or "G").upper()]
        edges = (1 << 10 * power if found[3] else 10 ** (3 * power), 1 << 10 * power)
    least, most = (int(whole + part) * edge // 10 ** len(part) for edge in edges)
    if most >= SIZE_MAX:
        raise ValueError("a size below 4 EB")
    return Size(least, most)


def gigabytes(size: int) -> str:
    """Bytes in GB: what was written, as it was written; a card's, as it is sold. What is shown, written again, is not more than `size`."""
    if size % 10**6 == 0:
        return f"{size / 10**9:.10g} GB" if size >= 10**9 else f"{size // 10**6} MB"
    sold = next((gb for gb in _SOLD_AS if gb * 10**9 <= size <= gb << 30), None)
    if sold is not None:
        return f"{sold} GB"
    return f"{size / 2**30:.1f}".removesuffix(".0") + " GB" if size >= 1 << 30 else f"{size >> 20} MB"


def told_apart(one: int, other: int) -> tuple[str, str]:
    """Two sizes for one sentence: in GB, or in MiB where they would look the same."""
    if one != other and gigabytes(one) == gigabytes(other):
        return f"{one / 2**20:.10g} MiB", f"{other / 2**20:.10g} MiB"
    return gigabytes(one), gigabytes(other)
