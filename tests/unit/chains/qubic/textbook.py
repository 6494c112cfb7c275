"""SchnorrQ and the transaction layout once more, straight from their definitions: slow, obvious, sharing no code with qubix.

Affine points, the addition law of the curve as it stands in the paper, double-and-add. Only the hash is the same.
"""

from __future__ import annotations

from Crypto.Hash import KangarooTwelve

P = 2**127 - 1
ORDER = 0x29CBC14E5E0A72F05397829CBC14E5DFBD004DFE0F79992FB2540EC7768CE7
Complex = tuple[int, int]
Point = tuple[Complex, Complex]

D = (0xE40000000000000142, 0x5E472F846657E0FCB3821488F1FC0C8D)
GENERATOR = (
    (0x1A3472237C2FB305286592AD7B3833AA, 0x1E1F553F2878AA9C96869FB360AC77F6),
    (0x0E3FEE9BA120785AB924A2462BCBB287, 0x6E1C4AF8630E024249A7C344844C8B5C),
)
NEUTRAL = ((0, 0), (1, 0))


def times(a: Complex, b: Complex) -> Complex:
    return (a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P


def plus(a: Complex, b: Complex, sign: int = 1) -> Complex:
    return (a[0] + sign * b[0]) % P, (a[1] + sign * b[1]) % P


def inverse(a: Complex) -> Complex:
    norm = pow(a[0] * a[0] + a[1] * a[1], -1, P)
    return a[0] * norm % P, -a[1] * norm % P


def on_curve(point: Point) -> bool:
    xx, yy = (times(c, c) for c in point)
    return plus(yy, xx, -1) == plus((1, 0), times(D, times(xx, yy)))


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    xx, yy = times(x1, x2), times(y1, y2)
    shared = times(D, times(xx, yy))
    below_x, below_y = plus((1, 0), shared), plus((1, 0), shared, -1)
    both = inverse(times(below_x, below_y))
    x = times(plus(times(x1, y2), times(y1, x2)), times(below_y, both))
    y = times(plus(yy, xx), times(below_x, both))
    return x, y


def multiply(scalar: int, point: Point, other_scalar: int = 0, other: Point = NEUTRAL) -> Point:
    """scalar·point + other_scalar·other, bit by bit."""
    added = {"01": other, "10": point, "11": add(point, other)}
    total = NEUTRAL
    for a, b in zip(f"{scalar:0247b}", f"{other_scalar:0247b}", strict=True):
        total = add(total, total)
        if a + b in added:
            total = add(total, added[a + b])
    return total


def encode(point: Point) -> bytes:
    (x0, x1), (y0, y1) = point
    sign = (x0 if x0 else x1) >> 126
    return (y0 + (y1 << 128) + (sign << 255)).to_bytes(32, "little")


def hashed(message: bytes) -> bytes:
    return bytes(KangarooTwelve.new(data=message).read(32))


def accepts(encoded: bytes, key: Point) -> bool:
    """Whether a node would take these bytes as a transaction of the holder of a key."""
    size = encoded[78] + 256 * encoded[79]
    body, commitment, s = encoded[: 80 + size], encoded[80 + size : 112 + size], int.from_bytes(encoded[112 + size :], "little")
    challenge = int.from_bytes(hashed(commitment + body[:32] + hashed(body)), "little") % ORDER
    if len(encoded) != 144 + size or s >= ORDER or encode(key) != body[:32]:
        return False
    return encode(multiply(s, GENERATOR, challenge, key)) == commitment
