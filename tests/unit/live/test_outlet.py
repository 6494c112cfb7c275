"""What waits for one client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qubix.live.outlet import Outlet


async def test_everything_comes_in_order_while_the_client_keeps_up() -> None:
    outlet = Outlet()
    outlet.offer_durable("e1")
    for n in range(5):
        outlet.offer_volatile(f"v{n}", "same")
    assert await outlet.take() == ["e1", "v0", "v1", "v2", "v3", "v4"]
    assert outlet.dropped == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=500))
async def test_a_slow_client_is_left_with_the_latest_value_of_each_subject(subjects: list[int]) -> None:
    outlet = Outlet(volatile_max=20)
    for n, subject in enumerate(subjects):
        outlet.offer_volatile(f"{subject}/{n}", str(subject))
    texts = await outlet.take()
    assert len(texts) <= 20
    assert len(texts) + outlet.dropped == len(subjects)
    last = {subject: f"{subject}/{n}" for n, subject in enumerate(subjects)}
    assert set(last.values()) <= set(texts)


async def test_an_event_past_the_bound_marks_a_gap_instead_of_growing() -> None:
    outlet = Outlet(durable_max=2)
    for n in range(3):
        outlet.offer_durable(str(n))
    assert outlet.overflowed
    assert await outlet.take() == ["0", "1"]


async def test_a_volatile_flood_never_pushes_an_event_out() -> None:
    outlet = Outlet(volatile_max=4)
    outlet.offer_durable("event")
    for n in range(100):
        outlet.offer_volatile(str(n), str(n))
    assert (await outlet.take())[0] == "event"
    assert not outlet.overflowed
