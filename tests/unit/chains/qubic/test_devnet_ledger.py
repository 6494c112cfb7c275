"""The devnet's rules: what executes, what is dropped without a word, what the archive knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.ledger import FIRST_EPOCH, FIRST_TICK, TICKS_AHEAD_MAX, Account, Fate, Interval, Ledger, Log, genesis
from tests.unit.chains.qubic.devnet_world import (
    ANNA,
    BERT,
    CARL,
    DORA,
    FAUCET,
    NOW_MS,
    PEOPLE,
    QX,
    SUPPLY,
    rich,
    send_many,
    steps,
    transfer,
    young,
)


def test_a_transfer_executes_in_its_tick_and_not_before() -> None:
    ledger = rich()
    target = ledger.tick + 3
    assert ledger.admit(transfer(ANNA, BERT, 100, target)) == (Fate.POOLED, None)
    assert steps(ledger, 2).executed == ()
    tick = steps(ledger, 1)
    assert [(found.moved, found.movements[0].kind) for found in tick.executed] == [(True, Log.QU_TRANSFER)]
    assert ledger.account(ANNA) == Account(10_000, 100, 1, 1, FIRST_TICK + 3, target)
    assert ledger.account(BERT) == Account(100, 0, 1, 0, target, 0)
    assert tick.changed == {ANNA: ledger.account(ANNA), BERT: ledger.account(BERT)}


def test_a_transfer_above_the_balance_is_included_and_moves_nothing() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, BERT, 10_001, ledger.tick + 2))
    (executed,) = steps(ledger, 2).executed
    assert (executed.moved, executed.movements) == (False, ())
    assert ledger.account(ANNA).outgoing_count == 0


def test_of_two_payments_that_are_too_much_together_the_first_in_the_pool_executes() -> None:
    ledger = rich()
    target = ledger.tick + 2
    for payee, amount in ((BERT, 6000), (CARL, 6000), (DORA, 4000)):
        ledger.admit(transfer(ANNA, payee, amount, target))
    assert [executed.moved for executed in steps(ledger, 2).executed] == [True, False, True]


def test_one_sender_may_have_several_payments_pending() -> None:
    ledger = rich()
    for amount, ahead in ((1, 3), (2, 3), (3, 2)):
        ledger.admit(transfer(ANNA, BERT, amount, ledger.tick + ahead))
    steps(ledger, 3)
    assert ledger.account(BERT).incoming == 6


def test_a_payment_of_nothing_is_included_and_moves_nothing() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, BERT, 0, ledger.tick + 2, b"memo"))
    assert [executed.moved for executed in steps(ledger, 2).executed] == [False]


def test_a_payment_to_oneself_counts_both_ways() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, ANNA, 70, ledger.tick + 2))
    steps(ledger, 2)
    account = ledger.account(ANNA)
    assert (account.balance, account.incoming_count, account.outgoing_count) == (10_000, 2, 1)


def test_what_is_sent_to_null_is_burnt() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, identity.NULL, 70, ledger.tick + 2))
    (executed,) = steps(ledger, 2).executed
    assert executed.moved
    assert (ledger.account(ANNA).balance, ledger.state.burnt, ledger.total()) == (9930, 70, SUPPLY)
    assert identity.NULL not in ledger.state.accounts


def test_a_contract_that_is_not_there_gives_the_money_back() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, QX, 70, ledger.tick + 2, b"", 5))
    (executed,) = steps(ledger, 2).executed
    assert not executed.moved
    assert [(found.source, found.destination, found.amount) for found in executed.movements] == [(ANNA, QX, 70), (QX, ANNA, 70)]
    account = ledger.account(ANNA)
    assert (account.balance, account.outgoing, account.incoming) == (10_000, 70, 10_070)


def test_a_send_many_of_sum_and_fee_pays_everybody_and_burns_the_fee() -> None:
    ledger = rich()
    ledger.admit(send_many(ANNA, 310, ledger.tick + 2, (BERT, 100), (CARL, 200)))
    (executed,) = steps(ledger, 2).executed
    assert executed.moved
    assert [(found.kind, found.source, found.destination, found.amount) for found in executed.movements] == [
        (Log.QU_TRANSFER, ANNA, wire.QUTIL, 310),
        (Log.QU_TRANSFER, wire.QUTIL, BERT, 100),
        (Log.QU_TRANSFER, wire.QUTIL, CARL, 200),
        (Log.BURNING, wire.QUTIL, identity.NULL, 10),
    ]
    balances = [ledger.account(key).balance for key in (ANNA, BERT, CARL, wire.QUTIL)]
    assert (balances, ledger.state.burnt) == ([9690, 100, 200, 0], 10)


@pytest.mark.parametrize("amount", [309, 311, 300, 1])
def test_a_send_many_of_any_other_amount_gives_everything_back(amount: int) -> None:
    ledger = rich()
    ledger.admit(send_many(ANNA, amount, ledger.tick + 2, (BERT, 100), (CARL, 200)))
    (executed,) = steps(ledger, 2).executed
    assert not executed.moved
    assert (ledger.account(ANNA).balance, ledger.account(BERT).balance, ledger.state.burnt) == (10_000, 0, 0)


def test_a_send_many_of_the_wrong_size_or_with_a_negative_amount_gives_everything_back() -> None:
    ledger = rich()
    whole = send_many(ANNA, 110, ledger.tick + 2, (BERT, 100))
    ledger.admit(transfer(ANNA, wire.QUTIL, 110, ledger.tick + 2, whole.payload[:-1], wire.SEND_TO_MANY))
    ledger.admit(send_many(ANNA, 110, ledger.tick + 2, (BERT, 200), (CARL, -100)))
    assert [executed.moved for executed in steps(ledger, 2).executed] == [False, False]
    assert ledger.account(ANNA).balance == 10_000


def test_a_place_of_null_is_skipped_and_its_amount_stays_with_the_contract() -> None:
    ledger = rich()
    ledger.admit(send_many(ANNA, 160, ledger.tick + 2, (BERT, 100), (identity.NULL, 50)))
    assert [executed.moved for executed in steps(ledger, 2).executed] == [True]
    assert (ledger.account(wire.QUTIL).balance, ledger.total()) == (50, SUPPLY)


def test_unknown_or_empty_senders_and_impossible_ticks_are_dropped_in_silence() -> None:
    ledger = rich()
    now = ledger.tick
    assert ledger.admit(transfer(DORA, BERT, 0, now + 5))[0] is Fate.NO_SENDER
    assert ledger.admit(transfer(ANNA, BERT, 1, now + 1))[0] is Fate.TOO_SOON
    assert ledger.admit(transfer(ANNA, BERT, 1, now + 2))[0] is Fate.POOLED
    assert ledger.admit(transfer(ANNA, BERT, 1, now + TICKS_AHEAD_MAX))[0] is Fate.POOLED
    assert ledger.admit(transfer(ANNA, BERT, 1, now + TICKS_AHEAD_MAX + 1))[0] is Fate.TOO_FAR
    ledger.admit(transfer(ANNA, BERT, 9_998, now + 3))
    ledger.admit(transfer(ANNA, BERT, 1, now + 4))
    steps(ledger, 4)
    assert ledger.account(ANNA).balance == 0
    assert ledger.admit(transfer(ANNA, BERT, 1, ledger.tick + 2))[0] is Fate.NO_SENDER


def test_the_same_bytes_are_pooled_once() -> None:
    ledger = rich()
    again = transfer(ANNA, BERT, 7, ledger.tick + 2)
    assert [ledger.admit(again)[0] for _ in range(3)] == [Fate.POOLED, Fate.KNOWN, Fate.KNOWN]
    assert len(steps(ledger, 2).executed) == 1


def test_a_full_tick_keeps_the_higher_priorities() -> None:
    ledger = rich(tick_transactions_max=2)
    target = ledger.tick + 3
    poor = [transfer(ANNA, BERT, amount, target) for amount in (1, 2, 3)]
    assert [ledger.admit(found)[0] for found in poor] == [Fate.POOLED, Fate.POOLED, Fate.CROWDED]
    wealthy = transfer(FAUCET, CARL, 5, target)
    assert ledger.admit(wealthy) == (Fate.POOLED, poor[0].id)
    assert ledger.admit(transfer(ANNA, BERT, 1, target + 1))[0] is Fate.POOLED
    assert [executed.wire.id for executed in steps(ledger, 3).executed] == [poor[1].id, wealthy.id]


def test_skipped_ticks_take_what_was_to_execute_in_them_along() -> None:
    ledger = rich()
    now = ledger.tick
    for ahead in (2, 6, 7, 8):
        ledger.admit(transfer(ANNA, BERT, ahead, now + ahead))
    tick = ledger.skip(6, NOW_MS)
    assert (tick.number, [executed.wire.amount for executed in tick.executed]) == (now + 7, [7])
    assert [executed.wire.amount for executed in steps(ledger, 1).executed] == [8]
    assert ledger.account(BERT).incoming == 15
    assert ledger.state.intervals == [Interval(FIRST_EPOCH, FIRST_TICK, now), Interval(FIRST_EPOCH, now + 7, now + 8)]


def test_an_epochs_change_loses_everything_pending_and_jumps() -> None:
    ledger = rich()
    now = ledger.tick
    ledger.admit(transfer(ANNA, BERT, 1, now + 101))
    ledger.admit(transfer(ANNA, BERT, 1, now + 200))
    tick = ledger.change_epoch(100, NOW_MS)
    assert (tick.number, tick.epoch, tick.executed, ledger.state.pool) == (now + 101, FIRST_EPOCH + 1, (), {})
    steps(ledger, 120)
    assert ledger.account(BERT) == Account()


def test_the_archive_is_executed_ticks_behind_across_a_jump() -> None:
    ledger = rich()
    now = ledger.tick
    assert ledger.state.archived == now - 3
    ledger.skip(1000, NOW_MS)
    assert ledger.state.archived == now - 2
    assert ledger.intervals(ledger.state.archived) == [Interval(FIRST_EPOCH, FIRST_TICK, now - 2)]
    steps(ledger, 3)
    assert ledger.state.archived == now + 1001
    assert ledger.behind(ledger.tick, 10**9) == FIRST_TICK


def test_a_larger_lag_halts_the_archive_and_a_smaller_one_lets_it_catch_up() -> None:
    ledger = rich()
    steps(ledger, 10)
    had = ledger.state.archived
    ledger.set_lag(8, 4)
    assert (ledger.state.archived, ledger.state.logged) == (had, had)
    steps(ledger, 6)
    assert (ledger.state.archived, ledger.state.logged) == (had + 1, had)
    ledger.set_lag(0, 0)
    assert (ledger.state.archived, ledger.state.logged) == (ledger.tick, ledger.tick)


class Conservation(RuleBasedStateMachine):
    """Whatever is broadcast, skipped or lost: balances and what is burnt are the genesis; each past can be told as it was."""

    @initialize()
    def begin(self) -> None:
        self.ledger = young(tick_transactions_max=3)
        self.past = {self.ledger.tick: dict(self.ledger.state.accounts)}
        self.archived = 0

    @rule(
        source=st.sampled_from([FAUCET, *PEOPLE]),
        destination=st.sampled_from([FAUCET, *PEOPLE, QX, wire.QUTIL, identity.NULL]),
        amount=st.integers(0, SUPPLY + 1) | st.integers(0, 50),
        ahead=st.integers(1, 6),
    )
    def pay(self, source: bytes, destination: bytes, amount: int, ahead: int) -> None:
        self.ledger.admit(transfer(source, destination, amount, self.ledger.tick + ahead))

    @rule(
        source=st.sampled_from([FAUCET, *PEOPLE]),
        payments=st.lists(st.tuples(st.sampled_from([*PEOPLE, QX, wire.QUTIL, identity.NULL]), st.integers(0, 1000)), max_size=25),
        wrong=st.sampled_from([0, 0, 0, 1, -1]),
        ahead=st.integers(1, 6),
    )
    def pay_many(self, source: bytes, payments: list[tuple[bytes, int]], wrong: int, ahead: int) -> None:
        amount = sum(amount for _, amount in payments) + self.ledger.send_many_fee + wrong
        self.ledger.admit(send_many(source, amount, self.ledger.tick + ahead, *payments))

    @rule(count=st.integers(1, 5))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            self._remember(self.ledger.step(NOW_MS).number)

    @rule(count=st.integers(0, 8))
    def leave_out(self, count: int) -> None:
        self._remember(self.ledger.skip(count, NOW_MS).number)

    @rule(count=st.integers(0, 8))
    def change_epoch(self, count: int) -> None:
        self._remember(self.ledger.change_epoch(count, NOW_MS).number)
        assert self.ledger.state.pool == {}

    @rule(lag=st.integers(0, 9), log_lag=st.integers(0, 3))
    def lag(self, lag: int, log_lag: int) -> None:
        self.ledger.set_lag(lag, log_lag)

    def _remember(self, number: int) -> None:
        self.past[number] = dict(self.ledger.state.accounts)

    @invariant()
    def the_supply_is_what_it_was(self) -> None:
        assert self.ledger.total() == SUPPLY
        assert all(account.balance >= 0 for account in self.ledger.state.accounts.values())

    @invariant()
    def only_the_future_is_pending(self) -> None:
        assert all(tick > self.ledger.tick and 0 < len(found) <= 3 for tick, found in self.ledger.state.pool.items())

    @invariant()
    def the_archive_never_unlearns_nor_runs_ahead(self) -> None:
        state = self.ledger.state
        assert self.archived <= state.archived <= self.ledger.tick
        assert state.logged <= state.archived
        self.archived = state.archived

    @invariant()
    def the_past_stays_as_it_was(self) -> None:
        for tick in sorted(self.past)[-4:]:
            for key in (FAUCET, ANNA, wire.QUTIL):
                assert self.ledger.account(key, tick) == self.past[tick].get(key, Account())


Conservation.TestCase.settings = settings(max_examples=100, stateful_step_count=12, deadline=None)
TestConservation = Conservation.TestCase


def test_a_ledger_over_a_loaded_state_goes_on_where_it_was() -> None:
    ledger = rich()
    ledger.admit(transfer(ANNA, BERT, 5, ledger.tick + 2))
    again = Ledger(replace(ledger.state))
    assert steps(again, 2).executed
    assert again.known_since == FIRST_TICK + 3
    assert Ledger(genesis(FAUCET)).known_since == FIRST_TICK
