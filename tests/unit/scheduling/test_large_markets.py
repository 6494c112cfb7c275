"""Placement in a large market decides as the plain reading of its rules does: no shortcut may be seen in an answer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.scheduling import placing
from qubix.scheduling.placement import CONSTRAINTS, Candidate, Choice, Wanted, choose, explain, keep_free
from qubix.scheduling.placement_store import Waiting
from qubix.scheduling.placing import Assignment, Pace, batches, make_plan
from tests.unit.scheduling.test_placement import UUID, Needs, candidates, jobs, offer, slot, wanted

PASSING = ("online", "barred", "busy")
GENTLE = ("price", "budget", "region", "trust", "tflops", "vram", "offer", "gpu_models", "node_size", "gpus")


def plain_funnel(job: Wanted, offers: Sequence[Candidate]) -> dict[str, int]:
    """Each constraint in its turn, over what is left."""
    left, rejected = list(offers), {}
    for name, test in CONSTRAINTS:
        passed = [one for one in left if test(job, one)]
        if len(passed) < len(left):
            rejected[name] = len(left) - len(passed)
        left = passed
    return rejected


def plain_needed(job: Wanted, offers: Sequence[Candidate]) -> frozenset[str]:
    """Every set of lasting constraints, the smallest and gentlest first, with every longer wait, until an offer matches."""
    tests = dict(CONSTRAINTS)
    for size in range(len(GENTLE) + 1):
        for chosen in itertools.combinations(GENTLE, size):
            for waits in ((), ("busy",), ("busy", "barred"), PASSING):
                dropped = {*chosen, *waits}
                matching = [one for one in offers if all(name in dropped or test(job, one) for name, test in CONSTRAINTS)]
                if matching:
                    return min((frozenset(name for name in dropped if not tests[name](job, one)) for one in matching), key=len)
    return frozenset()


def plain_assignments(queue: Sequence[Waiting], offers: Sequence[Candidate]) -> list[Assignment]:
    """One job after the other, all offers written anew after each."""
    placed: list[Assignment] = []
    reserved = False
    for job in queue:
        found = choose(job.wanted, offers)
        if isinstance(found, Choice):
            placed.append(Assignment(job.wanted.job_id, found))
            taken = {one.device_id for one in found.slots}
        elif found.reserve_node_id is not None and not reserved:
            reserved = True
            taken = set(keep_free(job.wanted, found.reserve_node_id, offers))
        else:
            continue
        offers = [
            dataclasses.replace(
                one,
                slots=tuple(dataclasses.replace(s, holder_id=job.wanted.job_id) if s.device_id in taken else s for s in one.slots),
            )
            for one in offers
        ]
    return placed


@settings(max_examples=100, deadline=None)
@given(st.lists(jobs, max_size=6), candidates, st.integers(1, 3))
def test_assignments_go_in_batches_of_one_node_and_each_in_one_of_them(queue: list[Wanted], offers: list[Candidate], most: int) -> None:
    made = plain_assignments([Waiting(dataclasses.replace(job, job_id=uuid4()), uuid4(), None) for job in queue], offers)
    found = batches(made, most=most)
    assert sorted(one.job_id for batch in found for one in batch) == sorted(one.job_id for one in made)
    assert all(0 < len(batch) <= most and len({one.choice.candidate.node_id for one in batch}) == 1 for batch in found)
    assert all(batch == sorted(batch, key=made.index) for batch in found)


@settings(max_examples=300, deadline=None)
@given(jobs, candidates)
def test_a_refusal_names_what_the_plain_reading_of_the_rules_names(job: Wanted, offers: list[Candidate]) -> None:
    found = explain(job, offers)
    if isinstance(choose(job, offers), Choice):
        return
    needed = plain_needed(job, offers)
    assert found.rejected == plain_funnel(job, offers)
    assert set(found.relaxation) == needed - set(PASSING)
    assert found.code in needed or (found.code == "no_offers" and not offers)
    assert (found.reserve_node_id is not None) == (bool(needed) and needed <= {"busy", "barred"})


@settings(max_examples=200, deadline=None)
@given(st.lists(jobs, max_size=6), candidates)
def test_a_round_places_what_the_plain_loop_places(wants: list[Wanted], offers: list[Candidate]) -> None:
    queue = [Waiting(dataclasses.replace(job, job_id=UUID(int=900 + n)), UUID(int=1), None) for n, job in enumerate(wants)]
    assert list(make_plan(queue, offers).assignments) == plain_assignments(queue, offers)


def test_on_a_shortlist_a_job_keeps_the_node_that_it_was_given_and_gets_no_other() -> None:
    half = [offer(1, slot(1), slot(2, holder=UUID(int=5)))]
    fresh = Waiting(wanted(1, needs=Needs(gpus=2)), UUID(int=1), None)
    kept = Waiting(wanted(2, needs=Needs(gpus=2), reserved_node_id=UUID(int=101)), UUID(int=1), {"code": "busy"})
    plan = make_plan([fresh, kept], half, whole=False)
    assert [refused.keep for refused in plan.refusals] == [(), (1,)]


def test_a_shortlist_is_not_asked_why() -> None:
    plan = make_plan([Waiting(wanted(1, needs=Needs(gpus=9)), UUID(int=1), None)], [offer(1, slot(1))], whole=False)
    assert [(refused.why.code, refused.why.rejected) for refused in plan.refusals] == [("not_on_shortlist", {})]


def test_where_there_is_no_time_for_all_reasons_the_jobs_that_may_keep_a_node_go_first_and_everything_that_fits_is_placed() -> None:
    large = [offer(n, slot(n * 10), slot(n * 10 + 1, holder=UUID(int=5))) for n in range(1, placing.EXPLAINED_MAX // 8)]
    never = [Waiting(wanted(n, needs=Needs(gpus=9)), UUID(int=1), {"code": "gpus", "rejected": {}}) for n in range(20)]
    two = Waiting(wanted(50, needs=Needs(gpus=2)), UUID(int=1), None)
    small = Waiting(wanted(51), UUID(int=1), None)
    plan = make_plan([*never, two, small], large, turn=3)
    assert [refused.job_id for refused in plan.refusals] == [never[3].wanted.job_id, two.wanted.job_id]
    assert plan.refusals[1].keep == (10,)
    assert [placed.job_id for placed in plan.assignments] == [small.wanted.job_id]


def test_a_small_market_is_looked_through_always_and_a_large_one_a_fifth_of_the_time() -> None:
    pace = Pace()
    assert pace.due(10.0)
    pace.looked(10.0, took_s=0.01)
    assert pace.due(10.0)
    pace.looked(10.0, took_s=1.0)
    assert not pace.due(13.9)
    assert pace.due(14.0)
