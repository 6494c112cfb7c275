"""Placement: the choice satisfies every constraint, no matching offer is missed, and a refusal's relaxation would help."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.kernel.money import Qu
from qubix.market.model import Needs
from qubix.scheduling.placement import CONSTRAINTS, Candidate, Choice, Slot, Unplaceable, Wanted, choose, keep_free
from qubix.scheduling.placement_store import Waiting
from qubix.scheduling.placing import make_plan

GIB = 1 << 30


def slot(n: int, gib: int = 24, holder: UUID | None = None, *, quarantined: bool = False) -> Slot:
    return Slot(n, f"GPU-{n}", gib * GIB, holder, quarantined)


def offer(n: int, *slots: Slot, model: str = "RTX_4090", price: int = 1000, region: str = "eu", **rest: Any) -> Candidate:
    return Candidate(
        UUID(int=n), UUID(int=100 + n), UUID(int=200), f"node-{n}", model, region, Qu(price), 1, slots or (slot(n * 10),), **rest
    )


def wanted(n: int = 1, *, rate_max: int = 10_000, **rest: Any) -> Wanted:
    needs = rest.pop("needs", Needs())
    return Wanted(UUID(int=900 + n), needs, Qu(rate_max), 1, **rest)


def refusal(found: Choice | Unplaceable) -> Unplaceable:
    assert isinstance(found, Unplaceable)
    return found


def chosen(found: Choice | Unplaceable) -> UUID:
    assert isinstance(found, Choice)
    return found.candidate.offer_id


def test_the_cheapest_fitting_offer_wins_and_ties_keep_their_order() -> None:
    assert chosen(choose(wanted(), [offer(1, price=900), offer(2, price=800), offer(3, price=800)])) == UUID(int=2)


def test_the_quotes_offer_goes_first_and_its_leases_count_as_free() -> None:
    quote = UUID(int=77)
    offers = [offer(1, price=800), offer(2, slot(20, holder=quote), price=900)]
    assert chosen(choose(wanted(quote_id=quote, quote_offer_id=UUID(int=2)), offers)) == UUID(int=2)
    assert chosen(choose(wanted(), offers)) == UUID(int=1)


def test_a_job_gets_all_its_gpus_of_one_node_or_none() -> None:
    offers = [offer(1, slot(1), slot(2)), offer(2, slot(3), slot(4, holder=UUID(int=5)))]
    found = choose(wanted(needs=Needs(gpus=2)), offers)
    assert isinstance(found, Choice)
    assert [taken.device_id for taken in found.slots] == [1, 2]
    assert found.rate == 2000
    assert refusal(choose(wanted(needs=Needs(gpus=2)), offers[1:])).code == "busy"


def test_a_device_in_quarantine_a_node_that_takes_no_work_and_a_barred_node_take_nothing() -> None:
    for closed in (
        offer(1, slot(1, quarantined=True)),
        offer(1, takes_work=False, excuse="draining"),
    ):
        assert isinstance(choose(wanted(), [closed]), Unplaceable)
    assert refusal(choose(wanted(barred=frozenset({UUID(int=101)})), [offer(1)])).code == "barred"


def test_a_node_that_lost_the_job_before_is_taken_only_if_there_is_no_other() -> None:
    wary = frozenset({UUID(int=101)})
    assert chosen(choose(wanted(wary=wary), [offer(1, price=10), offer(2, price=5000)])) == UUID(int=2)
    assert chosen(choose(wanted(wary=wary), [offer(1, price=10)])) == UUID(int=1)


def test_the_refusal_names_the_smallest_change() -> None:
    offers = [offer(1, price=5000), offer(2, model="H100", price=9000, region="us")]
    assert refusal(choose(wanted(rate_max=4000), offers)).relaxation == {"price": 5000}
    assert refusal(choose(wanted(needs=Needs(regions=("asia",))), offers)).relaxation == {"region": ["eu", "us"]}
    assert refusal(choose(wanted(needs=Needs(gpu_models=("A100",))), offers)).relaxation == {"gpu_models": ["H100", "RTX_4090"]}
    assert refusal(choose(wanted(needs=Needs(vram_bytes=99 * GIB)), offers)).relaxation == {"vram": 24 * GIB}
    assert refusal(choose(wanted(needs=Needs(gpus=2)), offers)).relaxation == {"gpus": 1}
    both = refusal(choose(wanted(rate_max=4000, needs=Needs(regions=("asia",))), offers))
    assert set(both.relaxation) == {"price", "region"}
    assert refusal(choose(wanted(), [])).code == "no_offers"


def test_a_refusal_says_sizes_and_trust_as_people_write_them() -> None:
    def said(needs: Needs, *slots: Slot, **rest: Any) -> str:
        return refusal(choose(wanted(needs=needs), [offer(1, *slots, **rest)])).message

    assert said(Needs(vram_bytes=48 * 10**9)) == "No device has 48 GB of memory: 24 GB would match."
    assert said(Needs(vram_bytes=24 * GIB + (12 << 20))) == "No device has 24588 MiB of memory: 24576 MiB would match."
    assert said(Needs(gpus=2)) == "No node has 2 such GPUs: 1 would match."
    used = said(Needs(gpus=2), slot(1, holder=UUID(int=5)))
    assert (
        used == "No node has 2 such GPUs: 1 would match. One offer would fit then, but every device is in use: it starts when one is free."
    )
    other = said(Needs(gpu_models=("A100",)), slot(1, holder=UUID(int=5)))
    assert (
        other == "No A100: it would match with RTX_4090. One offer would fit then, but every device is in use: it starts when one is free."
    )
    large = said(Needs(cpu_cores=512), ram_bytes=62 * GIB, cpu_cores=8)
    assert large == "No node is that large: the largest that fits otherwise has 64 GB of RAM and 8 CPU cores."
    for text in (large, said(Needs(reliability_min=0.99), reliability=0.9), said(Needs(reliability_min=0.99), reliability=None)):
        assert "{" not in text
        assert "None" not in text.removeprefix("None is as")
    assert "a reliability of 90%" in said(Needs(reliability_min=0.99), reliability=0.9, verified=True)


def test_a_budget_that_pays_for_less_than_a_second_of_every_offer_is_the_reason() -> None:
    dear = offer(1, price=7200)
    found = refusal(choose(wanted(left=Qu(1), spent=9), [dear]))
    assert (found.code, found.relaxation, found.rejected) == ("budget", {"budget": 11}, {"budget": 1})
    assert "a budget of 11" in found.message
    assert isinstance(choose(wanted(left=Qu(2), spent=9), [dear]), Choice)
    assert chosen(choose(wanted(left=Qu(1)), [dear, offer(2, price=3600)])) == UUID(int=2)
    assert refusal(choose(wanted(left=Qu(1)), [dear, offer(2, slot(20, holder=UUID(int=5)), price=3600)])).code == "busy"


def test_a_busy_offer_asks_for_nothing_but_time() -> None:
    found = refusal(choose(wanted(), [offer(1, slot(1, holder=UUID(int=5))), offer(2, price=20_000)]))
    assert (found.code, found.relaxation) == ("busy", {})
    assert found.reserve_node_id == UUID(int=101)


def test_models_and_regions_are_compared_as_people_write_them() -> None:
    assert isinstance(choose(wanted(needs=Needs(gpu_models=("rtx-4090",), regions=("EU",))), [offer(1, region="eu-west")]), Choice)


def test_the_oldest_unplaceable_job_keeps_one_nodes_devices_from_younger_ones() -> None:
    node = offer(1, slot(1), slot(2, holder=UUID(int=5)))
    large, small = wanted(1, needs=Needs(gpus=2)), wanted(2)
    plan = make_plan([Waiting(large, UUID(int=1), None), Waiting(small, UUID(int=1), None)], [node])
    assert plan.assignments == ()
    assert [refused.keep for refused in plan.refusals] == [(1,), ()]
    assert plan.refusals[0].why.reserve_node_id == node.node_id
    younger_first = make_plan([Waiting(small, UUID(int=1), None), Waiting(large, UUID(int=1), None)], [node])
    assert [placed.job_id for placed in younger_first.assignments] == [small.job_id]


def test_what_was_kept_counts_for_the_job_and_the_same_node_stays_kept() -> None:
    large = wanted(1, needs=Needs(gpus=2), reserved_node_id=UUID(int=102))
    offers = [offer(1, slot(1), slot(2, holder=UUID(int=5))), offer(2, slot(3, holder=large.job_id), slot(4, holder=UUID(int=6)))]
    found = refusal(choose(large, offers))
    assert found.reserve_node_id == UUID(int=102)
    assert keep_free(large, UUID(int=102), offers) == (3,)
    freed = [offers[0], dataclasses.replace(offers[1], slots=(offers[1].slots[0], slot(4)))]
    assert chosen(choose(large, freed)) == UUID(int=2)


def test_one_round_gives_a_device_to_one_job_only() -> None:
    plan = make_plan([Waiting(wanted(n), UUID(int=1), None) for n in (1, 2, 3)], [offer(1), offer(2)])
    devices = [taken.device_id for placed in plan.assignments for taken in placed.choice.slots]
    assert sorted(devices) == [10, 20]
    assert len(plan.refusals) == 1


candidates = st.lists(
    st.builds(
        lambda n, gpus, price, model, region, takes, held: offer(
            n,
            *(slot(n * 10 + i, holder=UUID(int=5) if i < held else None) for i in range(gpus)),
            price=price,
            model=model,
            region=region,
            takes_work=takes,
        ),
        st.integers(1, 50),
        st.integers(1, 3),
        st.integers(1, 5000),
        st.sampled_from(["RTX_4090", "H100"]),
        st.sampled_from(["eu", "us"]),
        st.booleans(),
        st.integers(0, 3),
    ),
    max_size=8,
)
jobs = st.builds(
    lambda gpus, models, regions, rate, left: wanted(
        needs=Needs(gpus=gpus, gpu_models=models, regions=regions), rate_max=rate, left=left, spent=7
    ),
    st.integers(1, 3),
    st.sampled_from([(), ("H100",), ("A100",)]),
    st.sampled_from([(), ("us",), ("asia",)]),
    st.integers(1, 12_000),
    st.one_of(st.none(), st.integers(0, 4).map(Qu)),
)


@settings(max_examples=300, deadline=None)
@given(jobs, candidates)
def test_a_choice_satisfies_every_constraint_and_no_matching_offer_is_missed(job: Wanted, offers: list[Candidate]) -> None:
    matching = [one for one in offers if all(test(job, one) for _, test in CONSTRAINTS)]
    found = choose(job, offers)
    if isinstance(found, Choice):
        assert found.candidate in matching
        assert found.candidate.price_per_hour == min(one.price_per_hour for one in matching)
        assert len(found.slots) == job.needs.gpus
        assert found.rate <= job.rate_max
    else:
        assert matching == []


@settings(max_examples=300, deadline=None)
@given(jobs, candidates)
def test_the_relaxation_would_let_an_offer_match_once_it_is_free(job: Wanted, offers: list[Candidate]) -> None:
    found = choose(job, offers)
    if isinstance(found, Choice) or found.code == "no_offers":
        assert isinstance(found, Choice) or not offers
        return
    change: dict[str, Any] = dict(found.relaxation)
    needs = dataclasses.replace(
        job.needs,
        gpus=change.get("gpus", job.needs.gpus),
        gpu_models=() if "gpu_models" in change else job.needs.gpu_models,
        regions=tuple(change.get("region", job.needs.regions)),
    )
    left = Qu(change["budget"] - job.spent) if "budget" in change else job.left
    relaxed = dataclasses.replace(job, needs=needs, rate_max=change.get("price", job.rate_max), left=left)
    free = [dataclasses.replace(one, takes_work=True, slots=tuple(slot(s.device_id) for s in one.slots)) for one in offers]
    assert isinstance(choose(relaxed, free), Choice)
