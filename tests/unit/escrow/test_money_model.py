"""The money acts as a pure model, in any order, by anybody, repeated."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fakes.money_machine import MoneyMachine


def test_p_a04_a08_b18_b19_b20_no_order_of_acts_loses_or_makes_money_in_the_model() -> None:
    run_state_machine_as_test(MoneyMachine, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))
