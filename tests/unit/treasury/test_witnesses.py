"""What several endpoints prove together of what came in."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import product

import pytest

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import ArchivedTransaction, QuTransfer, Transfers
from qubix.chains.qubic.errors import RpcUnavailable, TickNotYetProcessed
from qubix.treasury.receiving import Credit, Doubt, Doubtful, NotYet, SecondProof, payments_in
from qubix.treasury.witnesses import Evidence, Found, Gone, Jump, Read, Witnesses, findings, written_down
from tests.fakes.qubic_rpc import FIRST, SECOND, Said, Seen, World, head, ok, processed, trouble
from tests.unit.treasury.chain import ALICE, BOB, PAYER, TICK, pay, shown

OURS = {ALICE.identity: "user"}
QUTIL = identity.encode(qutil.ADDRESS)
MADE = pay(PAYER, ALICE.public_key, 50)
ELSEWHERE = shown(pay(PAYER, BOB.public_key, 7))
MOVE = QuTransfer(PAYER.identity, ALICE.identity, 50)


def says(one: ArchivedTransaction | None, *moves: QuTransfer, log_tick: int = TICK + 3) -> Evidence:
    payments = payments_in([one] if one else [], OURS)
    return Evidence(payments, SecondProof(log_tick, {MADE.id: Transfers(MADE.id, moves, complete=True)} if one else {}, {}, {}))


CREDIT = says(shown(MADE), MOVE)
WAIT = says(shown(MADE), log_tick=TICK)
DOUBT = says(shown(MADE))
GONE = says(shown(MADE, money_flew=False))
EARLY = says(shown(MADE, money_flew=False), log_tick=TICK)
SILENT = says(None)
ALONE = [(CREDIT, Credit), (WAIT, NotYet), (DOUBT, Doubtful), (GONE, Gone), (EARLY, NotYet)]


@pytest.mark.parametrize(("evidence", "due"), ALONE)
def test_a_sole_witness_decides_alone(evidence: Evidence, due: type[Found]) -> None:
    (found,) = findings({"a": evidence}, {})
    assert type(found) is due


def test_a_credit_needs_every_witness_and_so_does_calling_it_gone() -> None:
    for first, second in product([CREDIT, WAIT, DOUBT, GONE, EARLY, SILENT], repeat=2):
        found = findings({"a": first, "b": second}, {})
        assert [type(one) for one in found] == [type(one) for one in findings({"b": second, "a": first}, {})]
        kinds = {type(one) for one in found}
        assert (Credit in kinds) == (first is CREDIT and second is CREDIT)
        assert (Gone in kinds) == (first is GONE and second is GONE)
        assert len(found) == (first is not SILENT or second is not SILENT)


def test_what_one_witness_does_not_show_is_kept_as_doubtful() -> None:
    (found,) = findings({"a": CREDIT, "b": SILENT}, {})
    assert isinstance(found, Doubtful)


ALTERED = [
    replace(shown(MADE), amount=51),
    replace(shown(MADE), destination=BOB.identity),
    replace(shown(MADE), destination=QUTIL),
    replace(shown(MADE), source=ALICE.identity),
]


@pytest.mark.parametrize("altered", ALTERED)
def test_an_endpoint_that_alters_a_payment_hides_it_not(altered: ArchivedTransaction) -> None:
    for lists in ({"a": (altered,), "b": (shown(MADE),)}, {"a": (shown(MADE),), "b": (altered,)}):
        assert Read(TICK, lists).transactions() == {MADE.id: shown(MADE)}
        (found,) = findings({base: says(listed[0], MOVE) for base, listed in lists.items()}, {})
        assert isinstance(found, Doubtful)
        assert found.payment.genuine
        assert found.payment.amount == 50


def test_the_archives_words_are_kept_in_its_own_shape() -> None:
    one = shown(pay(PAYER, ALICE.public_key, 50, b"qubix:job:1"))
    kept = written_down(one)
    assert (kept["amount"], kept["tickNumber"], base64.b64decode(kept["inputData"])) == ("50", TICK, b"qubix:job:1")
    assert base64.b64decode(kept["signature"]) == one.signature


class Network:
    """Two endpoints that a test writes: how far each archive is, and its list of TICK."""

    def __init__(self, *bases: str) -> None:
        self.world = World(*bases)
        self.witnesses = Witnesses(self.world.rpc)
        self.said: dict[str, dict[str, Said]] = {}

    def write(self, base: str, tick: int = TICK + 3, **answers: Said) -> None:
        self.said[base] = {"getLastProcessedTick": processed(tick), "tick-info": head(tick + 3), **answers}
        self.world.endpoints.write(base, self._answer)

    def _answer(self, seen: Seen) -> Said:
        return self.said[seen.base].get(seen.path.rpartition("/")[2], trouble(500, 13))


def listing(*some: ArchivedTransaction) -> Said:
    return ok([written_down(one) for one in some])


def data(*some: ArchivedTransaction) -> Said:
    return ok({"tickData": {"tickNumber": TICK, "epoch": 1, "transactionHashes": [one.id for one in some], "timestamp": "0"}})


async def test_the_archive_counts_as_far_as_the_second_furthest_endpoint() -> None:
    network = Network()
    network.write(FIRST, TICK + 900)
    network.write(SECOND, TICK)
    _, archive = await network.witnesses.look()
    assert archive.tick == TICK


async def test_no_endpoint_moves_the_head_alone() -> None:
    network = Network()
    network.write(SECOND, TICK)
    for lie in range(0, 10_000, 900):
        network.write(FIRST, TICK, **{"tick-info": head(TICK + 3 + lie)})
        seen, _ = await network.witnesses.look()
        assert seen.tick == TICK + 3


async def test_what_does_not_concern_us_is_dropped_at_once() -> None:
    network = Network()
    for base in (FIRST, SECOND):
        network.write(base, getTransactionsForTick=listing(shown(MADE), ELSEWHERE))
    read = await network.witnesses.read(TICK, TICK + 3, OURS)
    assert isinstance(read, Read)
    assert [[one.id for one in listed] for listed in read.lists.values()] == [[MADE.id]] * 2


async def test_with_one_of_two_endpoints_away_no_tick_is_read() -> None:
    network = Network()
    network.write(FIRST, getTransactionsForTick=listing())
    with pytest.raises(RpcUnavailable):
        await network.witnesses.read(TICK, TICK + 3, OURS)
    network.write(SECOND, TICK - 1, getTransactionsForTick=trouble(400, 9, tickNumber=TICK - 1))
    with pytest.raises((TickNotYetProcessed, RpcUnavailable)):
        await network.witnesses.read(TICK, TICK + 3, OURS)


async def test_a_sole_endpoints_list_must_be_what_the_ticks_data_names() -> None:
    network = Network(FIRST)
    network.write(FIRST, getTransactionsForTick=listing(ELSEWHERE), getTickData=data(shown(MADE), ELSEWHERE))
    assert isinstance(await network.witnesses.read(TICK, TICK + 3, OURS), Doubt)
    network.write(FIRST, getTransactionsForTick=listing(), getTickData=data(ELSEWHERE))
    assert isinstance(await network.witnesses.read(TICK, TICK + 9_000, OURS), Doubt), "an empty list, however old"
    network.write(FIRST, getTransactionsForTick=listing(ELSEWHERE), getTickData=data(ELSEWHERE))
    assert isinstance(await network.witnesses.read(TICK, TICK + 3, OURS), Read)


async def test_a_skip_needs_both_and_their_intervals() -> None:
    network = Network()
    skipped = trouble(400, 11, nextTickNumber=TICK + 5)
    gap = ok([{"epoch": 1, "firstTick": 1, "lastTick": TICK - 1}, {"epoch": 2, "firstTick": TICK + 5, "lastTick": TICK + 20}])
    for base in (FIRST, SECOND):
        network.write(base, getTransactionsForTick=skipped, getProcessedTickIntervals=gap)
    assert await network.witnesses.read(TICK, TICK + 20, OURS) == Jump(TICK + 4)
    network.write(SECOND, getTransactionsForTick=listing(replace(ELSEWHERE)), getProcessedTickIntervals=gap)
    assert isinstance(await network.witnesses.read(TICK, TICK + 20, OURS), Doubt)
