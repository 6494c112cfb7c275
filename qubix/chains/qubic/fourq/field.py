"""GF(p²) with p = 2¹²⁷ − 1 and i² = −1; an element a0 + a1·i is the pair (a0, a1).

Used where clarity counts more than speed; the point formulas in curve.py spell the same arithmetic out. Every function takes
integers of any size and sign, and returns a pair reduced to 0 ≤ a < p.
"""

from __future__ import annotations

from typing import Final, TypeAlias

P: Final = (1 << 127) - 1
_HALF: Final = (P + 1) >> 1
"""1/2 mod p."""

Element: TypeAlias = tuple[int, int]

ZERO: Final[Element] = (0, 0)
ONE: Final[Element] = (1, 0)


def add(a: Element, b: Element) -> Element:
    """a + b."""
    return (a[0] + b[0]) % P, (a[1] + b[1]) % P


def subtract(a: Element, b: Element) -> Element:
    """a − b."""
    return (a[0] - b[0]) % P, (a[1] - b[1]) % P


def negate(a: Element) -> Element:
    """−a."""
    return -a[0] % P, -a[1] % P


def multiply(a: Element, b: Element) -> Element:
    """a · b."""
    return (a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P


def invert(a: Element) -> Element:
    """1/a, by the norm: (a0 − a1·i) / (a0² + a1²).

    Raises: ValueError for zero.
    """
    scale = pow(a[0] * a[0] + a[1] * a[1], -1, P)
    return a[0] * scale % P, -a[1] * scale % P


def invert_all(elements: list[Element]) -> list[Element]:
    """The inverses of many elements for the price of one inversion (Montgomery's trick).

    Raises: ValueError if one of them is zero.
    """
    products = [ONE]
    for element in elements:
        products.append(multiply(products[-1], element))
    rest = invert(products.pop())
    inverses = []
    for element, before in zip(reversed(elements), reversed(products), strict=True):
        inverses.append(multiply(rest, before))
        rest = multiply(rest, element)
    return inverses[::-1]


def _base_square_root(a: int) -> int | None:
    """A root in GF(p), where p ≡ 3 (mod 4); None if a is no square."""
    root = pow(a, (P + 1) >> 2, P)
    return root if (root * root - a) % P == 0 else None


def square_root(a: Element) -> Element | None:
    """A root of a, or None if a is no square.

    With x = x0 + x1·i and n = √(a0² + a1²), x² = a gives x0² = (a0 ± n)/2 and x1 = a1/(2·x0); −1 is no square in GF(p), so for
    a1 ≠ 0 exactly one of the signs has a root.
    """
    a0, a1 = a[0] % P, a[1] % P
    if a1 == 0:
        real = _base_square_root(a0)
        # One of a0 and −a0 is a square; √−a0 · i is a root of a0.
        return (real, 0) if real is not None else (0, _base_square_root(-a0) or 0)
    norm = _base_square_root(a0 * a0 + a1 * a1)
    if norm is None:
        return None
    x0 = _base_square_root((a0 + norm) * _HALF)
    if x0 is None:
        x0 = _base_square_root((a0 - norm) * _HALF)
    if x0 is None:
        return None
    return x0, a1 * pow(2 * x0, -1, P) % P
