"""The typed query language, and what URL parameters mean."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.kernel.errors import Invalid
from qubix.market import filters as filtering
from qubix.market import query, search
from qubix.market.filters import Filters, Sort, matches
from qubix.market.model import Status
from qubix.market.query import FIELDS, Condition, Op, QueryError
from tests.unit.market.offers import GIB, offer


def test_the_example_of_the_documentation_is_read() -> None:
    conditions, words = query.parse('gpu=RTX_4090 vram>=24GB price<2000 region in [eu,us] "two words" fast')
    assert conditions == (
        Condition("gpu", Op.EQ, ("RTX_4090",)),
        Condition("vram", Op.GE, (24 * 10**9,)),
        Condition("price", Op.LT, (2000,)),
        Condition("region", Op.IN, ("eu", "us")),
    )
    assert words == ("two words", "fast")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("vram >= 24", Condition("vram", Op.GE, (24 * 10**9,))),
        ("vram>=24GiB", Condition("vram", Op.GE, (24 * GIB,))),
        ("vram>=1.5gb", Condition("vram", Op.GE, (1_500_000_000,))),
        ("vram>512MB", Condition("vram", Op.GT, (512 << 20,))),
        ("vram<=24GB", Condition("vram", Op.LE, (24 * GIB,))),
        ("vram=24GB", Condition("vram", Op.EQ, (24 * 10**9,), (24 * GIB,))),
        ("vram >= 24 GB", Condition("vram", Op.GE, (24 * 10**9,))),
        ("ram in [64GB,128GiB]", Condition("ram", Op.IN, (64 * 10**9, 128 * GIB), (64 * GIB, 128 * GIB))),
        ("gpu = rtx-4090", Condition("gpu", Op.EQ, ("RTX_4090",))),
        ('gpu="RTX 4090"', Condition("gpu", Op.EQ, ("RTX_4090",))),
        ("model!=RTX_3090", Condition("gpu", Op.NE, ("RTX_3090",))),
        ("gpu not in [RTX_4090 , A100_80GB]", Condition("gpu", Op.NOT_IN, ("RTX_4090", "A100_80GB"))),
        ("region notin [us]", Condition("region", Op.NOT_IN, ("us",))),
        ("reliability>=95%", Condition("reliability", Op.GE, (0.95,))),
        ("verified=yes", Condition("verified", Op.EQ, (True,))),
        ("gpus==2", Condition("gpus", Op.EQ, (2,))),
    ],
)
def test_each_spelling_is_read(text: str, wanted: Condition) -> None:
    assert query.parse(text) == ((wanted,), ())


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("colour=red", 0, "no field"),
        ("price<2000 speed>3", 11, "no field"),
        ("price<", 6, "value is missing"),
        ("price<cheap", 6, "whole number"),
        ("price<-5", 6, "whole number"),
        ("gpu>RTX_4090", 3, "cannot be compared"),
        ("region in [eu us]", 14, "Expected ',' or ']'"),
        ("region in [eu", 13, "Expected"),
        ("region in []", 11, "value is missing"),
        ("vram>=24parsecs", 6, "size"),
        ("reliability>lots", 12, "share"),
        ('"open', 0, "not closed"),
        ("price<1 <3", 8, "Cannot read"),
        ("gpu=A10 vram>=24XB fast", 14, "size"),
        ("vram in [24GB, 24XB]", 15, "size"),
        ("verified=perhaps", 9, "true or false"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_is_allowed(text: str, position: int, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        query.parse(text)
    assert caught.value.extra["position"] == position
    assert says in caught.value.message
    assert caught.value.next_step


def test_a_bad_unit_is_marked_from_its_first_to_its_last_character_and_the_units_are_named() -> None:
    with pytest.raises(QueryError) as caught:
        query.parse("gpu=A10 vram>=24XB fast")
    at, length = caught.value.extra["position"], caught.value.extra["length"]
    assert "gpu=A10 vram>=24XB fast"[at : at + length] == "24XB"
    assert {"GB", "GiB", "MB"} <= set(caught.value.extra["allowed"])
    assert "GiB" in caught.value.next_step


def test_a_mistake_in_a_parameter_claims_no_position() -> None:
    with pytest.raises(QueryError) as caught:
        filtering.parse({"vram_min": "24XB"})
    assert "position" not in caught.value.extra
    assert "position" not in caught.value.message


CARDS_OF_24_GB = [24_564 << 20, 24 * GIB, 23_034 << 20]


@pytest.mark.parametrize("vram", CARDS_OF_24_GB)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vram>=24GB", True),
        ("vram=24GB", True),
        ("vram<=24GB", True),
        ("vram in [16GB,24GB]", True),
        ("vram>=24", True),
        ("vram>24GB", False),
        ("vram<24GB", False),
        ("vram!=24GB", False),
        ("vram notin [24GB]", False),
        ("vram>=32GB", False),
        ("vram<=20GB", False),
    ],
)
def test_24gb_is_every_card_that_is_sold_as_24_gb(text: str, found: bool, vram: int) -> None:
    assert matches(offer(vram_bytes=vram), filtering.parse({"query": text})) is found


@settings(max_examples=500)
@given(st.one_of(st.text(max_size=60), st.text(alphabet='gpuvramprice =<>![],"24GBin_.%', max_size=60)))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    position = 0
    try:
        conditions, words = query.parse(text)
    except QueryError as refused:
        position = refused.extra["position"]
    assert 0 <= position <= len(text)
    assert all(condition.field in FIELDS for condition in conditions)
    assert all(words)


def test_a_query_has_a_length_and_a_number_of_terms() -> None:
    for text in ("x" * 1001, " ".join(["a"] * 41), f"region in [{','.join(['eu'] * 51)}]"):
        with pytest.raises(QueryError):
            query.parse(text)


def test_parameters_and_the_typed_query_mean_the_same() -> None:
    by_url = filtering.parse(
        {"model": "RTX_4090,RTX_3090", "vram_min": "24", "price_max": "2000", "region": "eu", "q": "Epyc", "sort": "performance"}
    )
    typed = filtering.parse({"query": "gpu in [RTX_4090,RTX_3090] vram>=24GB price<=2000 region in [eu] epyc", "sort": "performance"})
    assert by_url == typed
    assert by_url.sort is Sort.PERFORMANCE


def test_a_region_matches_itself_and_what_lies_in_it() -> None:
    found = filtering.parse({"region": "eu"})
    assert [matches(offer(region=region), found) for region in ("eu", "eu-west", "europe", "us")] == [True, True, False, False]


def test_an_unknown_reliability_satisfies_no_comparison() -> None:
    for op in Op:
        assert not matches(offer(reliability=None), Filters(conditions=(Condition("reliability", op, (0.5,)),)))


def test_only_rentable_offers_are_available() -> None:
    assert matches(offer(), Filters())
    assert not matches(offer(gpus_free=0, status=Status.BUSY), Filters())
    assert not matches(offer(status=Status.STALE), Filters())


def test_a_cursor_reads_back() -> None:
    text = "1234.5~01a203fe-82fb-74b8-a1c8-afe4bd01d8a9"
    cursor = filtering.Cursor.parse(text)
    assert f"{cursor.value}~{cursor.offer_id}" == text


def test_a_values_text_never_becomes_sql() -> None:
    plan = search.compile_page(filtering.parse({"provider": "x'; DROP TABLE offers; --", "q": "%' OR 1=1"}))
    assert "DROP" not in plan.sql
    assert "1=1" not in plan.sql
    assert hash(plan) == hash(search.compile_page(filtering.parse({"provider": "x'; DROP TABLE offers; --", "q": "%' OR 1=1"})))


@pytest.mark.parametrize(
    "parameters", [{"limit": "٣"}, {"limit": "1000"}, {"cursor": "1~x"}, {"cursor": "nan"}, {"available": "no"}, {"q": "a " * 41}]
)
def test_a_parameter_that_cannot_be_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        filtering.parse(parameters)
