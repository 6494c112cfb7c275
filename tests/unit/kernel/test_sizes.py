"""Sizes as people write them, and as they read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.estimates.catalogue import GPUS
from qubix.kernel.sizes import gigabytes, parse_size, told_apart

MIB = 1 << 20
CARDS = {
    "RTX_4090": 24_564,
    "L4": 23_034,
    "A10": 23_028,
    "L40S": 46_068,
    "T4": 15_360,
    "H100_SXM": 81_559,
    "H200_SXM": 143_771,
    "B200": 183_359,
}
"""MiB that NVML reports, beside what the card is sold as."""


@pytest.mark.parametrize(("model", "reported"), CARDS.items())
def test_a_card_is_shown_and_found_by_the_size_that_it_is_sold_as(model: str, reported: int) -> None:
    sold = f"{GPUS[model].vram_bytes >> 30} GB"
    assert gigabytes(reported * MIB) == gigabytes(GPUS[model].vram_bytes) == sold
    assert parse_size(sold).least <= reported * MIB <= parse_size(sold).most


@pytest.mark.parametrize("text", ["24 GB", "1.5 GB", "512 MB", "25 GB", "1000 GB", "7.25 GB", "23 GB"])
def test_what_was_written_is_shown_back_equal(text: str) -> None:
    assert gigabytes(parse_size(text).least) == text


@pytest.mark.parametrize("text", ["24GB", "24 gb", " 24 ", "24G", "24.0GB"])
def test_gigabytes_are_the_unit_that_need_not_be_written(text: str) -> None:
    assert (parse_size(text).least, parse_size(text).most) == (24 * 10**9, 24 << 30)


@pytest.mark.parametrize(("text", "size"), [("24GiB", 24 << 30), ("512MiB", 512 << 20), ("1000B", 1000), ("1.5KiB", 1536)])
def test_binary_units_and_bytes_are_exact(text: str, size: int) -> None:
    assert (parse_size(text).least, parse_size(text).most) == (size, size)


@pytest.mark.parametrize("text", ["", "GB", "24XB", "-1GB", "1e9", "24GBB", "٣GB", "9999999TB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


@given(st.integers(1 << 20, 1 << 41))
def test_what_is_shown_asks_for_no_more_than_there_is_when_it_is_written_again(size: int) -> None:
    assert parse_size(gigabytes(size)).least <= size


def test_two_sizes_that_would_look_the_same_are_told_apart() -> None:
    assert told_apart(24 << 30, 24_564 * MIB) == ("24576 MiB", "24564 MiB")
    assert told_apart(48 * 10**9, 24_564 * MIB) == ("48 GB", "24 GB")
