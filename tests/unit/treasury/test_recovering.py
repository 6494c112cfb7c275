"""What explains a payment that a restored backup does not know, and what does not."""

from __future__ import annotations

from uuid import UUID, uuid4

from qubix.chains.qubic import identity, qutil
from qubix.treasury.recovering import Lost, Owed, explain
from qubix.treasury.signing import memo

HOT, ANN, BOB = (identity.encode(bytes([n]) * 32) for n in (1, 2, 3))


def payout(hold: UUID, amount: int, address: str) -> Lost:
    return Lost("tx", HOT, address, amount, 9, 0, memo(hold), from_hot=True, to_hot=False)


def many(*payments: tuple[str, int], fee: int = 10) -> Lost:
    sent = qutil.send_many(identity.decode(HOT), [(identity.decode(address), amount) for address, amount in payments], tick=9, fee=fee)
    return Lost("many", HOT, identity.encode(sent.destination), sent.amount, 9, sent.input_type, sent.payload, from_hot=True, to_hot=False)


def test_a_memo_explains_the_withdrawal_of_exactly_its_amount_and_address() -> None:
    hold = uuid4()
    [found] = explain([payout(hold, 5, ANN)], [Owed(uuid4(), 5, ANN), Owed(hold, 5, ANN)])
    assert (found.is_whole, [place.owed for place in found.places]) == (True, [hold])
    for owed in (Owed(hold, 6, ANN), Owed(hold, 5, BOB), Owed(uuid4(), 5, ANN)):
        [found] = explain([payout(hold, 5, ANN)], [owed])
        assert (found.is_whole, found.places[0].named) == (False, hold)


def test_a_send_many_pays_the_oldest_withdrawal_of_each_payee_and_none_twice() -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    owed = [Owed(first, 5, ANN), Owed(second, 5, ANN), Owed(third, 7, BOB)]
    [found, again] = explain([many((ANN, 5), (BOB, 7)), many((ANN, 5), (ANN, 5))], owed)
    assert (found.fee, [place.owed for place in found.places]) == (10, [first, third])
    assert (again.is_whole, [place.owed for place in again.places]) == (False, [second, None])


def test_a_sweep_explains_itself_and_anything_else_is_a_persons_to_explain() -> None:
    sweep = Lost("s", ANN, HOT, 5, 9, 0, b"", from_hot=False, to_hot=True)
    theft = Lost("t", ANN, BOB, 5, 9, 0, b"", from_hot=False, to_hot=False)
    bare = Lost("u", HOT, BOB, 5, 9, 0, b"", from_hot=True, to_hot=False)
    found = explain([sweep, theft, bare], [Owed(uuid4(), 5, BOB)])
    assert [(one.kind, one.is_whole) for one in found] == [("sweep", True), ("unknown", False), ("unknown", False)]
