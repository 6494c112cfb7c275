"""FourQ: the laws of a group, on points of every order, and both multiplications against the definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic.fourq import curve, field
from tests.unit.chains.qubic import textbook

elements = st.tuples(st.integers(0, field.P - 1), st.integers(0, field.P - 1))
scalars = st.integers(0, curve.ORDER - 1)
GENERATOR = curve.from_affine(*curve.GENERATOR)
MULTIPLES = curve.Multiples(GENERATOR)
EDGES = (0, 1, 2, 15, 16, 31, 32, 33, 2**62 - 1, 2**62, 2**124 - 1, 2**186, 2**246 - 1, curve.ORDER - 1)


def affine(point: curve.Point) -> textbook.Point:
    x0, x1, y0, y1, z0, z1, *_ = point
    inverse = field.invert((z0, z1))
    return field.multiply((x0, x1), inverse), field.multiply((y0, y1), inverse)


def sum_of(a: curve.Point, b: curve.Point) -> curve.Point:
    return curve.add(a, curve.normalised([b])[0])


def points_of_every_kind() -> list[curve.Point]:
    """Points of the whole group and, by way of the order, of small orders."""
    found = []
    for n in range(2, 40):
        point = curve.decode(n.to_bytes(32, "little"))
        if point is not None:
            found += [point, curve.Multiples(point).times(curve.ORDER)]
    return [curve.NEUTRAL, GENERATOR, curve.from_affine(field.ZERO, (field.P - 1, 0)), *found]


EVERY_KIND = points_of_every_kind()


def test_the_constants_are_those_of_a_complete_curve() -> None:
    assert curve.D == textbook.D
    assert curve.GENERATOR == textbook.GENERATOR
    assert curve.ORDER == textbook.ORDER
    assert textbook.on_curve(curve.GENERATOR)
    assert field.square_root(curve.D) is None
    assert field.square_root((field.P - 1, 0)) is not None


@given(elements, elements)
def test_the_field_divides_and_takes_roots(a: field.Element, b: field.Element) -> None:
    assert field.multiply(a, b) == textbook.times(a, b)
    if a != field.ZERO:
        assert field.multiply(field.invert(a), field.multiply(a, b)) == b
    root = field.square_root(field.multiply(a, a))
    assert root in (a, field.negate(a))
    found = field.square_root(b)
    assert found is None or field.multiply(found, found) == b


@given(st.integers(0, field.P - 1))
def test_the_field_has_a_root_of_every_real_number(a: int) -> None:
    root = field.square_root((a, 0))
    assert root is not None
    assert field.multiply(root, root) == (a, 0)


@given(st.lists(elements.filter(lambda element: element != field.ZERO), max_size=6))
def test_many_inversions_at_once_are_the_inversions_one_by_one(found: list[field.Element]) -> None:
    assert field.invert_all(found) == [field.invert(element) for element in found]


def test_the_formulas_hold_for_points_of_every_order() -> None:
    for point in EVERY_KIND:
        assert textbook.on_curve(affine(point))
        assert affine(curve.double(point)) == textbook.add(affine(point), affine(point))
        for other in EVERY_KIND:
            assert affine(sum_of(point, other)) == textbook.add(affine(point), affine(other))
        (addend,) = curve.normalised([point])
        assert curve.is_neutral(curve.add(point, curve.opposite(addend)))


def test_multiplying_is_adding_again_and_again() -> None:
    for scalar in EDGES:
        expected = textbook.multiply(scalar, textbook.GENERATOR)
        assert affine(MULTIPLES.times(scalar)) == expected, scalar
        if scalar < curve.ORDER:
            assert affine(curve.add_base_multiple(curve.NEUTRAL, scalar)) == expected, scalar


@given(scalars, scalars)
def test_both_multiplications_agree_and_distribute(a: int, b: int) -> None:
    assert affine(curve.add_base_multiple(MULTIPLES.times(a), b)) == affine(MULTIPLES.times((a + b) % curve.ORDER))


def test_only_the_generator_s_subgroup_has_prime_order() -> None:
    prime = [curve.Multiples(point).have_prime_order() for point in EVERY_KIND]
    assert prime[1]
    assert prime.count(True) == 1


@given(scalars)
@settings(max_examples=50)
def test_a_point_survives_its_encoding(scalar: int) -> None:
    point = MULTIPLES.times(scalar)
    decoded = curve.decode(curve.encode(point))
    assert decoded is not None
    assert affine(decoded) == affine(point)


@given(st.binary(min_size=32, max_size=32))
def test_a_decoded_point_lies_on_the_curve_and_has_one_encoding(encoded: bytes) -> None:
    point = curve.decode(encoded)
    if point is not None:
        assert textbook.on_curve(affine(point))
        assert curve.encode(point) == encoded


def test_the_sign_of_a_purely_imaginary_x_is_that_of_its_imaginary_part() -> None:
    # x = x1·i, x² = −x1²: the equation of the curve solved for y² = (1 + x²)/(1 − d·x²).
    found = 0
    for x1 in range(1, 20):
        square = (-x1 * x1, 0)
        y = field.square_root(
            field.multiply(field.add(field.ONE, square), field.invert(field.subtract(field.ONE, field.multiply(curve.D, square))))
        )
        for x in ((0, x1), (0, field.P - x1)):
            if y is not None:
                encoded = curve.encode(curve.from_affine(x, y))
                assert encoded == textbook.encode((x, y))
                decoded = curve.decode(encoded)
                assert decoded is not None
                assert affine(decoded) == (x, y)
                found += 1
    assert found


def test_an_encoding_has_no_second_form() -> None:
    beyond = (field.P).to_bytes(16, "little")
    assert curve.decode(beyond + bytes(16)) is None
    assert curve.decode(bytes(16) + beyond) is None
    assert curve.decode((1 | 1 << 255).to_bytes(32, "little")) is None
    assert curve.decode((1).to_bytes(32, "little")) is not None
