"""How chain money is shown to its owner: states, waits, ids, the faucet's bytes."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import identity
from qubix.ledger.model import EntryStatus
from qubix.treasury.faucet import Gift
from qubix.treasury.model import (
    UNWATCHED,
    ChainState,
    chain_event,
    confirmations_of,
    deposit_id,
    entry_of,
    outlook,
    said_of,
    said_of_withdrawal,
    withdrawal_state,
)

NOW = dt.datetime(2026, 11, 25, 12, 5, tzinfo=dt.UTC)
PAYEE = identity.encode(bytes([7]) * 31 + b"\x01")


@pytest.mark.parametrize(
    ("hold", "payment", "live", "halted", "state", "status"),
    [
        ("OPEN", None, False, False, ChainState.QUEUED, EntryStatus.PENDING),
        ("OPEN", None, False, True, ChainState.HALTED, EntryStatus.PENDING),
        ("OPEN", "DEAD", False, False, ChainState.QUEUED, EntryStatus.PENDING),
        ("OPEN", "SIGNED", True, True, ChainState.SIGNED, EntryStatus.PENDING),
        ("OPEN", "UNKNOWN", True, False, ChainState.UNKNOWN, EntryStatus.UNKNOWN),
        ("CAPTURED", "SIGNED", True, False, ChainState.DONE, EntryStatus.COMPLETED),
        ("VOIDED", None, False, True, ChainState.CANCELLED, EntryStatus.FAILED),
    ],
)
def test_a_withdrawal_is_as_its_hold_and_its_latest_payment_say(
    hold: str, payment: str | None, live: bool, halted: bool, state: ChainState, status: EntryStatus
) -> None:
    found = withdrawal_state(hold, payment, live=live, halted=halted)
    assert (found, found.status) == (state, status)
    assert said_of_withdrawal(found, 5, "why", died=payment == "DEAD")


@pytest.mark.parametrize("halted", [True, False])
def test_a_withdrawal_above_a_limit_says_that_it_waits_for_the_operator_until_it_is_signed(halted: bool) -> None:
    waiting = withdrawal_state("OPEN", None, live=False, halted=halted, waits_for_approval=True)
    assert waiting is ChainState.APPROVAL
    assert "operator" in said_of_withdrawal(waiting, None, "", died=False)
    assert withdrawal_state("OPEN", "SIGNED", live=True, halted=halted, waits_for_approval=True) is ChainState.SIGNED


@given(state=st.sampled_from(ChainState), tick=st.none() | st.integers(1, 100), processed=st.integers(0, 200), archived=st.booleans())
def test_p_b21_b36_three_confirmations_are_shown_of_what_is_done_alone_and_never_more_than_are_archived(
    state: ChainState, tick: int | None, processed: int, archived: bool
) -> None:
    shown = confirmations_of(state, tick, processed, archived=archived)
    assert (shown == 3) == (state is ChainState.DONE)
    assert confirmations_of(state, tick, processed + 1, archived=archived) >= shown
    if state is not ChainState.DONE and (tick is None or not archived or processed <= tick):
        assert shown == 0


def test_the_wait_is_said_while_the_archive_advances_and_not_otherwise() -> None:
    well = outlook(1000, 997, 2.0, NOW - dt.timedelta(seconds=60), NOW)
    assert (well.delayed, well.wait_s(1000), well.wait_s(None), well.wait_s(900)) == (False, 12, 52, 0)
    for advanced_at in (None, NOW - dt.timedelta(seconds=61)):
        still = outlook(1000, 997, 2.0, advanced_at, NOW)
        assert (still.delayed, still.wait_s(1000)) == (True, None)
    assert UNWATCHED.wait_s(1) is None


def test_a_deposits_ids_follow_from_its_transaction_and_place() -> None:
    assert deposit_id("a") == deposit_id("a", 0) != deposit_id("a", 1)
    assert entry_of(deposit_id("a")) != deposit_id("a")


def test_a_wallets_event_carries_the_chains_side() -> None:
    user, hold = uuid4(), uuid4()
    told = chain_event(user, "withdrawal", -5, hold, said_of(None))
    assert told.topics == (f"wallet:{user}",)
    assert {"tx_id": None, "state": "queued", "confirmations": 0, "tick": None, "change": -5}.items() <= told.payload.items()


def test_the_same_gift_is_the_same_bytes_and_another_purpose_makes_other_ones() -> None:
    gift = Gift(PAYEE, 500, 1000, "anna/k")
    assert gift.signed.to_bytes() == Gift(PAYEE, 500, 1000, "anna/k").signed.to_bytes()
    assert gift.signed.verify()
    assert len({Gift(PAYEE, 500, 1000, "anna/k2").tx_id, Gift(PAYEE, 500, 1001, "anna/k").tx_id, gift.tx_id}) == 3
    assert b"anna" not in gift.signed.payload
