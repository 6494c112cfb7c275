"""Points of FourQ, −x² + y² = 1 + d·x²·y² over GF(p²), and the two scalar multiplications that SchnorrQ needs.

The formulas are those of Hisil, Wong, Carter and Dawson, "Twisted Edwards Curves Revisited" (https://eprint.iacr.org/2008/522), for
a = −1; −1 is a square and d is none, so they hold for every pair of points. They are written out in integers because a call per
field operation would take longer than the operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final, TypeAlias

from qubix.chains.qubic.fourq import field
from qubix.chains.qubic.fourq.field import Element, P

# The curve, its generator and the prime order of the generator: Costello and Longa, section 2; draft-ladd-cfrg-4q-01, appendix A.
# The whole group has 392 · ORDER points.
D: Final = (0x00000000000000E40000000000000142, 0x5E472F846657E0FCB3821488F1FC0C8D)
GENERATOR: Final = (
    (0x1A3472237C2FB305286592AD7B3833AA, 0x1E1F553F2878AA9C96869FB360AC77F6),
    (0x0E3FEE9BA120785AB924A2462BCBB287, 0x6E1C4AF8630E024249A7C344844C8B5C),
)
ORDER: Final = 0x29CBC14E5E0A72F05397829CBC14E5DFBD004DFE0F79992FB2540EC7768CE7
_DOUBLE_D: Final = field.add(D, D)

Point: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int]
"""(X, Y, Z, Ta, Tb), two integers each: x = X/Z, y = Y/Z and x·y = Ta·Tb/Z. The product Ta·Tb is left open, since a doubling never
needs it. X, Y, Z are reduced; Ta and Tb are smaller than 2¹³³."""

Addend: TypeAlias = tuple[int, int, int, int, int, int]
"""(y + x, y − x, 2d·x·y) of an affine point, two reduced integers each: what an addition wants of its second operand."""

NEUTRAL: Final[Point] = (0, 0, 1, 0, 1, 0, 0, 0, 1, 0)


def double(point: Point) -> Point:
    """2·point (dbl-2008-hwcd; E, F, G and H all with the opposite sign, which no product of two of them shows)."""
    x0, x1, y0, y1, z0, z1, *_ = point
    s0, s1 = x0 + y0, x1 + y1
    # (u & P) + (u >> 127) is u modulo p, if not the smallest: half the price of %, and small enough for the next product.
    u = (x0 + x1) * (x0 - x1)
    v = 2 * x0 * x1
    a0, a1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    u = (y0 + y1) * (y0 - y1)
    v = 2 * y0 * y1
    b0, b1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    u = 2 * (z0 + z1) * (z0 - z1)
    v = 4 * z0 * z1
    c0, c1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    u = (s0 + s1) * (s0 - s1)
    v = 2 * s0 * s1
    h0, h1 = a0 + b0, a1 + b1
    e0, e1 = h0 - (u & P) - (u >> 127), h1 - (v & P) - (v >> 127)
    g0, g1 = a0 - b0, a1 - b1
    f0, f1 = c0 + g0, c1 + g1
    return (
        (e0 * f0 - e1 * f1) % P,
        (e0 * f1 + e1 * f0) % P,
        (g0 * h0 - g1 * h1) % P,
        (g0 * h1 + g1 * h0) % P,
        (f0 * g0 - f1 * g1) % P,
        (f0 * g1 + f1 * g0) % P,
        e0,
        e1,
        h0,
        h1,
    )


def add(point: Point, addend: Addend) -> Point:
    """point + addend (madd-2008-hwcd-3 with k = 2d)."""
    x0, x1, y0, y1, z0, z1, ta0, ta1, tb0, tb1 = point
    sum0, sum1, difference0, difference1, product0, product1 = addend
    u = ta0 * tb0 - ta1 * tb1
    v = ta0 * tb1 + ta1 * tb0
    t0, t1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    p0, p1, m0, m1 = y0 + x0, y1 + x1, y0 - x0, y1 - x1
    u = m0 * difference0 - m1 * difference1
    v = m0 * difference1 + m1 * difference0
    a0, a1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    u = p0 * sum0 - p1 * sum1
    v = p0 * sum1 + p1 * sum0
    b0, b1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    u = t0 * product0 - t1 * product1
    v = t0 * product1 + t1 * product0
    c0, c1 = (u & P) + (u >> 127), (v & P) + (v >> 127)
    e0, e1, h0, h1 = b0 - a0, b1 - a1, b0 + a0, b1 + a1
    f0, f1, g0, g1 = 2 * z0 - c0, 2 * z1 - c1, 2 * z0 + c0, 2 * z1 + c1
    return (
        (e0 * f0 - e1 * f1) % P,
        (e0 * f1 + e1 * f0) % P,
        (g0 * h0 - g1 * h1) % P,
        (g0 * h1 + g1 * h0) % P,
        (f0 * g0 - f1 * g1) % P,
        (f0 * g1 + f1 * g0) % P,
        e0,
        e1,
        h0,
        h1,
    )


def opposite(addend: Addend) -> Addend:
    """−addend."""
    sum0, sum1, difference0, difference1, product0, product1 = addend
    return difference0, difference1, sum0, sum1, -product0 % P, -product1 % P


def from_affine(x: Element, y: Element) -> Point:
    """The point (x, y), not checked."""
    return (*x, *y, 1, 0, *x, *y)


def is_neutral(point: Point) -> bool:
    """Whether the point is (0, 1)."""
    x0, x1, y0, y1, z0, z1, *_ = point
    return x0 == x1 == 0 and (y0, y1) == (z0, z1)


def encode(point: Point) -> bytes:
    """The 32 bytes of a point: y0 and y1, 16 bytes each, with the sign of x in the last bit.

    The sign is bit 126 of x0, or of x1 where x0 is zero (draft-ladd-cfrg-4q-01, section 3).
    """
    x0, x1, y0, y1, z0, z1, *_ = point
    inverse = field.invert((z0, z1))
    x, y = field.multiply((x0, x1), inverse), field.multiply((y0, y1), inverse)
    return y[0].to_bytes(16, "little") + (y[1] | _sign(x) << 127).to_bytes(16, "little")


def decode(encoded: bytes) -> Point | None:
    """The point of an encoding of 32 bytes; None if a coordinate is not below p, or if no point has it.

    The point may have any order, a small one too.
    """
    y0, last = int.from_bytes(encoded[:16], "little"), int.from_bytes(encoded[16:], "little")
    sign, y1 = last >> 127, last & P
    if y0 >= P or y1 == P:
        return None
    # From the equation of the curve, x² = (y² − 1)/(d·y² + 1); the divisor is never zero, −1/d being no square.
    y = (y0, y1)
    square = field.multiply(y, y)
    x = field.square_root(field.multiply(field.subtract(square, field.ONE), field.invert(field.add(field.multiply(square, D), field.ONE))))
    if x is None or (x == field.ZERO and sign):
        return None
    return from_affine(x if _sign(x) == sign else field.negate(x), y)


def _sign(x: Element) -> int:
    return (x[0] or x[1]) >> 126


def normalised(points: list[Point]) -> list[Addend]:
    """Many points, made ready to be added."""
    addends: list[Addend] = []
    inverses = field.invert_all([point[4:6] for point in points])
    for (x0, x1, y0, y1, *_), inverse in zip(points, inverses, strict=True):
        x, y = field.multiply((x0, x1), inverse), field.multiply((y0, y1), inverse)
        addends.append((*field.add(y, x), *field.subtract(y, x), *field.multiply(_DOUBLE_D, field.multiply(x, y))))
    return addends


def _steps(first: Addend, step: Addend, count: int) -> list[Point]:
    """first, first + step, first + 2·step, …: `count` points."""
    points = [add(NEUTRAL, first)]
    while len(points) < count:
        points.append(add(points[-1], step))
    return points


def _corners(point: Point, bits: int, count: int) -> list[Point]:
    """point, 2^bits·point, 2^(2·bits)·point, …: `count` points."""
    corners = [point]
    while len(corners) < count:
        for _ in range(bits):
            point = double(point)
        corners.append(point)
    return corners


# Multiples of the generator: 42 windows of six bits, more than the 246 bits of a scalar and the offset together. Digits run from −31
# to 32; adding _BASE_OFFSET, 31 in each window, makes them 0 to 63, so that no carry is needed. A row holds all 64 of them, zero
# too: each multiplication takes the same 42 additions, whatever its scalar.
_BASE_BITS: Final = 6
_BASE_ROWS: Final = 42
_BASE_HALF: Final = 1 << (_BASE_BITS - 1)
_BASE_OFFSET: Final = (_BASE_HALF - 1) * ((1 << _BASE_BITS * _BASE_ROWS) - 1) // ((1 << _BASE_BITS) - 1)


@cache
def _base_table() -> list[list[Addend]]:
    """Made once per process, at the first use (some 15 ms, under 1 MB)."""
    corners = normalised(_corners(from_affine(*GENERATOR), _BASE_BITS, _BASE_ROWS))
    addends = normalised([point for corner in corners for point in _steps(corner, corner, _BASE_HALF)])
    (nothing,) = normalised([NEUTRAL])
    table = []
    for row in range(_BASE_ROWS):
        positive = addends[row * _BASE_HALF : (row + 1) * _BASE_HALF]
        table.append([*map(opposite, positive[-2::-1]), nothing, *positive])
    return table


def add_base_multiple(point: Point, scalar: int) -> Point:
    """point + scalar·G, 0 ≤ scalar < ORDER."""
    digits = scalar + _BASE_OFFSET
    for row in _base_table():
        point = add(point, row[digits & 63])
        digits >>= _BASE_BITS
    return point


# Multiples of other points: the scalar in four parts of 62 bits for P, 2⁶²·P, 2¹²⁴·P and 2¹⁸⁶·P, which share 62 doublings; each part
# in the non-adjacent form of width 5, one odd digit between −15 and 15 in six bits.
_PARTS: Final = 4
_PART_BITS: Final = 62
_PART_MASK: Final = (1 << _PART_BITS) - 1


class Multiples:
    """The odd multiples of a point's four corners: costs 186 doublings once, saves them at every multiplication."""

    def __init__(self, point: Point) -> None:
        corners = _corners(point, _PART_BITS, _PARTS)
        ready = normalised([*corners, *map(double, corners)])
        positive = normalised([found for n in range(_PARTS) for found in _steps(ready[n], ready[_PARTS + n], 8)])
        rows = (positive[8 * n : 8 * n + 8] for n in range(_PARTS))
        self._rows = [[*map(opposite, row[::-1]), *row] for row in rows]

    def times(self, scalar: int) -> Point:
        """scalar·point, 0 ≤ scalar < 2²⁴⁸."""
        additions: list[list[Addend]] = [[] for _ in range(_PART_BITS + 1)]
        for n, row in enumerate(self._rows):
            for position, digit in _non_adjacent((scalar >> n * _PART_BITS) & _PART_MASK):
                additions[position].append(row[(digit + 15) >> 1])
        point = NEUTRAL
        for addends in reversed(additions):
            point = double(point)
            for addend in addends:
                point = add(point, addend)
        return point

    def have_prime_order(self) -> bool:
        """Whether the point generates the subgroup of ORDER elements, as every public key does and no point of small order."""
        return is_neutral(self.times(ORDER)) and not is_neutral(self.times(1))


def _non_adjacent(scalar: int) -> Iterator[tuple[int, int]]:
    """Positions and odd digits, −15 to 15, whose sum of digit·2^position is the scalar."""
    position = 0
    while scalar:
        zeros = (scalar & -scalar).bit_length() - 1
        position += zeros
        scalar >>= zeros
        digit = (scalar & 31) - ((scalar & 16) << 1)
        yield position, digit
        scalar -= digit
