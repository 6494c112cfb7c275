"""Faults are asked for, counted, and the same again for the same seed."""

from __future__ import annotations

from qubix.chains.qubic.devnet.faults import Fault, Faults, Kind

IDS = [f"tx{n}" for n in range(400)]


def struck(faults: Faults, kind: Kind, ids: list[str]) -> list[str]:
    return [found for found in ids if faults.strikes(kind, 1, door="a", area="broadcast", of=found)]


def test_without_a_fault_nothing_goes_wrong() -> None:
    assert all(Faults().strikes(kind, 1, door="a") is None for kind in Kind)


def test_a_fault_strikes_the_next_occasions_and_no_more() -> None:
    faults = Faults()
    faults.arm(Fault(Kind.LIMIT, next=2))
    assert [faults.strikes(Kind.LIMIT, 1, door="a") is not None for _ in range(4)] == [True, True, False, False]
    assert faults.strikes(Kind.ERROR, 1, door="a") is None


def test_a_fault_ends_with_its_last_tick() -> None:
    faults = Faults()
    faults.arm(Fault(Kind.UNREACHABLE, until_tick=10))
    assert [faults.strikes(Kind.UNREACHABLE, tick, door="a") is not None for tick in (9, 10, 11)] == [True, True, False]


def test_a_fault_of_one_door_or_area_leaves_the_others_alone() -> None:
    faults = Faults()
    faults.arm(Fault(Kind.ERROR, door="b", area="query"))
    assert faults.strikes(Kind.ERROR, 1, door="b", area="query")
    assert faults.strikes(Kind.ERROR, 1, door="a", area="query") is None
    assert faults.strikes(Kind.ERROR, 1, door="b", area="live") is None


def test_a_dropped_transaction_is_dropped_again_unless_it_is_not_to_stick() -> None:
    faults = Faults()
    faults.arm(Fault(Kind.DROP, next=2))
    assert struck(faults, Kind.DROP, ["x", "x", "y", "z", "x", "y"]) == ["x", "x", "y", "x", "y"]
    loose = Faults()
    loose.arm(Fault(Kind.DROP, next=2, sticky=False))
    assert struck(loose, Kind.DROP, ["x", "x", "x"]) == ["x", "x"]


def test_of_many_transactions_a_part_is_struck_always_the_same_part_for_a_seed() -> None:
    first, again, other = Faults("s"), Faults("s"), Faults("t")
    for faults in (first, again, other):
        faults.arm(Fault(Kind.DROP, p=0.1))
    found = struck(first, Kind.DROP, IDS)
    assert 20 <= len(found) <= 60
    assert found == struck(first, Kind.DROP, IDS) == struck(again, Kind.DROP, list(reversed(IDS)))[::-1]
    assert found != struck(other, Kind.DROP, IDS)


def test_chances_of_requests_follow_the_seed() -> None:
    runs = []
    for faults in (Faults("s"), Faults("s")):
        faults.arm(Fault(Kind.ERROR, p=0.5))
        runs.append([faults.strikes(Kind.ERROR, 1, door="a") is not None for _ in range(50)])
    assert runs[0] == runs[1]
    assert 5 < sum(runs[0]) < 45


def test_cleared_faults_are_gone_and_chances_begin_anew() -> None:
    faults = Faults("s")
    faults.arm(Fault(Kind.DROP, next=1))
    assert struck(faults, Kind.DROP, ["x"]) == ["x"]
    faults.clear("t")
    assert struck(faults, Kind.DROP, ["x"]) == []
    assert faults.seed == "t"
