"""How logins are slowed down: the guesser, not the owner."""

from __future__ import annotations

import pytest

from qubix.kernel.errors import Limited
from qubix.settings import Settings
from serve_app.calls import network_of
from serve_app.limits import DELAY_MAX_S, RateLimits

ANNA, HOME, CAFE = "anna@example.com", "192.0.2.1", "192.0.2.2"


class Slept:
    """A sleep that only adds up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __call__(self, seconds: float) -> None:
        self.seconds += seconds


async def guess(limits: RateLimits, address: str) -> None:
    await limits.admit_login(ANNA, address)
    await limits.note_login(ANNA, address, good=False)


async def test_failures_from_many_addresses_delay_an_account_and_refuse_nobody() -> None:
    slept = Slept()
    limits = RateLimits(Settings(login_per_minute=3), sleep=slept)
    for n in range(3):
        await guess(limits, f"198.51.100.{n}")
    assert slept.seconds == 0
    for n in range(3, 60):
        before = slept.seconds
        await guess(limits, f"198.51.100.{n}")
        assert slept.seconds - before <= DELAY_MAX_S
    before = slept.seconds
    await limits.admit_login(ANNA, CAFE)
    assert slept.seconds - before == DELAY_MAX_S
    await limits.admit_login("bert@example.com", CAFE)
    assert slept.seconds - before == DELAY_MAX_S, "another account is not delayed"


async def test_an_address_with_a_good_login_is_neither_refused_nor_delayed_for_what_others_fail() -> None:
    slept = Slept()
    limits = RateLimits(Settings(login_per_minute=3), sleep=slept)
    await limits.note_login(ANNA, HOME, good=True)
    for n in range(40):
        await limits.note_login(ANNA, f"198.51.100.{n}", good=False)
    for _ in range(20):
        await limits.admit_login(ANNA, HOME)
    assert slept.seconds == 0


async def test_an_address_with_a_good_login_is_still_slowed_down_by_its_own_failures() -> None:
    slept = Slept()
    limits = RateLimits(Settings(login_per_minute=3), sleep=slept)
    await limits.note_login(ANNA, HOME, good=True)
    with pytest.raises(Limited):
        for _ in range(31):
            await guess(limits, HOME)
    assert slept.seconds > 20


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("unix socket", "unix socket")],
)
def test_all_addresses_of_one_ipv6_network_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network
