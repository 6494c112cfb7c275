"""Which withdrawals go into a payment, and that the signed bytes say exactly that."""

from __future__ import annotations

import dataclasses
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.chains.qubic import identity, keys, qutil
from qubix.chains.qubic.answers import Balance, TickInfo
from qubix.chains.qubic.transaction import AMOUNT_MAX, Transaction
from qubix.treasury.sending import Counters, Hold
from qubix.treasury.signing import (
    FEE_MAX,
    Candidate,
    Ceilings,
    Choice,
    SignatureFault,
    Wallet,
    _signed,
    agreed,
    agreed_head,
    choose,
    memo,
    sign_choice,
    sign_sweep,
    unpayable,
)


def _address(number: int) -> str:
    return identity.encode(keys.public_key_from_subseed(bytes([number]) * 32))


ADDRESSES = [_address(number) for number in range(1, 6)]
SUBSEED = bytes(range(32))
HOT = identity.encode(keys.public_key_from_subseed(SUBSEED))
NONE = Ceilings(0, 0, 0)
OPEN = Ceilings(10**15, 10**18, 10**18)


def candidate(number: int, amount: int, **more: object) -> Candidate:
    return Candidate(UUID(int=number), 1, amount, ADDRESSES[number % 5], **more)  # type: ignore[arg-type]


@st.composite
def queues(draw: st.DrawFn) -> list[Candidate]:
    """Holds in their order; what was signed before is the same for all of a user, and for all."""
    users = [draw(st.integers(0, 60)) for _ in range(3)]
    wallet_day = draw(st.integers(sum(users), 250))
    flags = st.booleans()
    made = []
    for number in range(draw(st.integers(0, 40))):
        user = draw(st.integers(0, 2))
        amount = draw(st.integers(1, 60))
        halted = draw(flags) and draw(flags)
        made.append(Candidate(UUID(int=number), user, amount, ADDRESSES[number % 5], draw(flags), halted, users[user], wallet_day))
    return made


CEILINGS = st.builds(Ceilings, st.integers(0, 70), st.integers(0, 200), st.integers(0, 500))
FEES = st.none() | st.integers(0, FEE_MAX + 5)


@settings(deadline=None)
@given(queue=queues(), ceilings=CEILINGS, balance=st.integers(0, 800), fee=FEES, house=st.integers(0, 1100))
def test_p_b13_a_payment_is_within_ceilings_balance_and_places(
    queue: list[Candidate], ceilings: Ceilings, balance: int, fee: int | None, house: int
) -> None:
    choice = choose(queue, ceilings, balance=balance, fee=fee, house=house)
    able = [one for one in queue if not one.halted and one.amount <= balance and ceilings.let([one])]
    assert (choice is None) == (not able), "whoever can go alone is not kept waiting by the others"
    if choice is None:
        return
    assert 1 <= len(choice.holds) <= qutil.PAYMENTS_MAX
    assert choice.amount == sum(one.amount for one in choice.holds) + choice.fee <= balance
    assert [one.hold_id.int for one in choice.holds] == sorted({one.hold_id.int for one in choice.holds}), "each once, in their order"
    assert not any(one.halted for one in choice.holds)
    wallet = sum(one.amount for one in choice.holds)
    for one in choice.holds:
        user = sum(other.amount for other in choice.holds if other.account_id == one.account_id)
        within = one.amount <= ceilings.payment_max and one.user_day + user <= ceilings.user_day_max
        assert one.approved or (within and one.wallet_day + wallet <= ceilings.wallet_day_max)
    if len(choice.holds) == 1:
        assert choice.fee == 0
        assert choice.holds[0] == able[0], "the oldest of those that can go alone"
    else:
        assert choice.fee == fee
        assert choice.fee <= min(house, FEE_MAX)


def test_several_go_together_only_when_the_house_pays_the_fee() -> None:
    queue = [candidate(number, 10) for number in range(3)]
    assert choose(queue, OPEN, balance=1000, fee=10, house=10) == Choice(tuple(queue), 10)
    for fee, house in ((10, 9), (None, 1000), (FEE_MAX + 1, 10**9)):
        assert choose(queue, OPEN, balance=1000, fee=fee, house=house) == Choice((queue[0],))


def test_a_withdrawal_past_a_ceiling_waits_and_does_not_block_the_next_one() -> None:
    large, small = candidate(1, 100), candidate(2, 5)
    ceilings = Ceilings(50, 1000, 1000)
    assert choose([large, small], ceilings, balance=1000, fee=None, house=0) == Choice((small,))
    approved = dataclasses.replace(large, approved=True)
    assert choose([approved, small], ceilings, balance=1000, fee=None, house=0) == Choice((approved,))
    assert choose([large], NONE, balance=1000, fee=None, house=0) is None


def test_with_little_balance_fewer_go_and_the_fee_is_counted() -> None:
    queue = [candidate(1, 60), candidate(2, 30), candidate(3, 10)]
    assert choose(queue, OPEN, balance=100, fee=10, house=10) == Choice((queue[0], queue[1]), 10)
    assert choose(queue, OPEN, balance=60, fee=10, house=10) == Choice((queue[1], queue[2]), 10)
    assert choose(queue, OPEN, balance=9, fee=10, house=10) is None
    assert choose(queue[:1], OPEN, balance=60, fee=10, house=10) == Choice((queue[0],))


def test_a_withdrawal_that_no_transaction_may_pay_is_left_to_a_person() -> None:
    assert unpayable(candidate(1, 10)) is None
    contract, null = identity.encode(identity.contract(4)), identity.encode(identity.NULL)
    for address in (contract, null, "A" * 60, "", "a" * 60, ADDRESSES[0][:-1] + ADDRESSES[0][0]):
        assert unpayable(dataclasses.replace(candidate(1, 10), address=address)), address
    assert unpayable(candidate(1, AMOUNT_MAX))


@settings(deadline=None)
@given(
    amounts=st.lists(st.integers(1, 10**12), min_size=1, max_size=25),
    fee=st.integers(0, FEE_MAX),
    tick=st.integers(1, 2**32 - 1),
)
def test_p_b13_a_signed_payout_reads_back_as_what_was_chosen_and_verifies(amounts: list[int], fee: int, tick: int) -> None:
    holds = tuple(candidate(number, amount) for number, amount in enumerate(amounts))
    choice = Choice(holds, fee if len(holds) > 1 else 0)
    signed = sign_choice(choice, HOT, SUBSEED, tick)
    read = Transaction.from_bytes(signed.encoded)
    assert read.verify()
    assert (identity.encode(read.source), read.amount, read.tick, read.id) == (HOT, choice.amount, tick, signed.tx_id)
    assert signed.holds == tuple(one.hold_id for one in holds)
    if len(holds) == 1:
        assert (read.input_type, signed.destination, read.payload) == (0, holds[0].address, memo(holds[0].hold_id))
    else:
        found = qutil.parse_send_many(read)
        paid = [(payment.place, identity.encode(payment.destination), payment.amount) for payment in found.payments]
        assert paid == [(place, one.address, one.amount) for place, one in enumerate(holds)]
        assert found.fee == choice.fee


def test_two_equal_payouts_differ_by_their_memo() -> None:
    first, second = (sign_choice(Choice((candidate(5 * number, 7),)), HOT, SUBSEED, 30) for number in (1, 2))
    assert first.destination == second.destination
    assert first.tx_id != second.tx_id


def test_p_b13_what_does_not_read_as_what_was_meant_is_never_given_out() -> None:
    transaction = Transaction(identity.decode(HOT), identity.decode(ADDRESSES[0]), 5, 30)
    for meant in ((ADDRESSES[1], 5), (ADDRESSES[0], 6)):
        with pytest.raises(SignatureFault):
            _signed(transaction, SUBSEED, 0, (), [(identity.decode(meant[0]), meant[1])])


def test_a_sweep_goes_to_the_paying_address_whole() -> None:
    signed = sign_sweep(HOT, ADDRESSES[0], 12, SUBSEED, 40)
    read = Transaction.from_bytes(signed.encoded)
    assert (signed.destination, read.amount, read.input_type, read.payload, signed.holds) == (ADDRESSES[0], 12, 0, b"", ())


def shown(amount: int, tick: int, transfers: int = 3, sent: int = 30) -> Balance:
    return Balance(HOT, amount, tick, amount + sent, sent, 1, transfers, 0, 0)


def test_a_wallet_is_believed_when_two_endpoints_agree_on_what_it_sent() -> None:
    assert agreed([shown(100, 50), shown(90, 60)], settled_tick=50, endpoints=2) == Wallet(90, Counters(3, 30))
    assert agreed([shown(100, 50)], settled_tick=50, endpoints=1) == Wallet(100, Counters(3, 30))
    assert agreed([shown(100, 50), shown(90, 50), shown(80, 3)], settled_tick=50, endpoints=3) == Wallet(90, Counters(3, 30))
    for answers, endpoints in (
        ([], 1),
        ([shown(100, 50)], 2),
        ([shown(100, 50), shown(100, 49)], 2),
        ([shown(100, 50), shown(100, 50, transfers=4)], 2),
        ([shown(100, 50), shown(100, 50, sent=31)], 2),
    ):
        assert isinstance(agreed(answers, settled_tick=50, endpoints=endpoints), Hold)


@pytest.mark.parametrize(
    ("ticks", "endpoints", "due"),
    [
        ([500], 1, 500),
        ([500, 503], 2, 503),
        ([500, 1_499], 2, None),
        ([500], 2, None),
        ([], 2, None),
        ([500, 90_000, 498], 3, 500),
        ([500, 100, 503], 3, 503),
    ],
)
def test_a_payment_is_aimed_from_a_head_that_no_endpoint_names_alone(ticks: list[int], endpoints: int, due: int | None) -> None:
    found = agreed_head([TickInfo(tick, 1, 1, 1) for tick in ticks], endpoints=endpoints)
    assert (None if isinstance(found, Hold) else found.tick) == due
