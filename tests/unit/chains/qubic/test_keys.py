"""Seeds, subseeds and public keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import keys
from qubix.chains.qubic.errors import InvalidSeed
from tests.unit.chains.qubic import vectors


def test_a_seed_gives_the_keys_of_the_other_implementations() -> None:
    for vector in vectors.KEYS:
        subseed = keys.subseed_from_seed(vector["seed"])
        assert subseed.hex() == vector["subseed"]
        assert keys.public_key_from_subseed(subseed).hex() == vector["public_key"]


def test_a_new_seed_is_a_seed_and_never_the_same() -> None:
    found = {keys.new_seed() for _ in range(100)}
    assert len(found) == 100
    assert all(len(keys.subseed_from_seed(seed)) == 32 for seed in found)


@pytest.mark.parametrize("seed", ["", "a" * 54, "a" * 56, "A" + "a" * 54, "a" * 54 + "\n", "a" * 55 + "\n", "é" * 55, "a" * 54 + "ª"])
def test_what_is_no_seed_is_refused_and_not_repeated(seed: str) -> None:
    with pytest.raises(InvalidSeed) as refusal:
        keys.subseed_from_seed(seed)
    assert not seed or seed not in str(refusal.value)


@given(st.text())
def test_any_text_is_a_seed_or_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidSeed):
        keys.subseed_from_seed(text)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_subseed_or_refused_by_name(subseed: bytes) -> None:
    if len(subseed) == 32:
        assert len(keys.public_key_from_subseed(subseed)) == 32
    else:
        with pytest.raises(InvalidSeed):
            keys.public_key_from_subseed(subseed)
