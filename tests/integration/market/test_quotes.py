"""Quotes on the real database: an offer that is held, and what is said when none can be."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.kernel.errors import Invalid, NotFound, QubixError
from qubix.kernel.ids import UserId
from qubix.market.model import Needs, NoSuchOffer, NothingMatches, OfferTaken, Quote, QuoteGone, QuoteState
from tests.fakes.nodes import Joined, join, person

pytestmark = pytest.mark.postgres
GIB = 1 << 30


async def quote(resources: Resources, user: UserId, needs: Needs | None = None, **more: object) -> Quote:
    async with scope(resources) as s:
        return await s.market.quote(user, needs or Needs(), duration_max_s=3600, **more)  # type: ignore[arg-type]


async def offer_id(resources: Resources, node: Joined) -> object:
    async with scope(resources) as s:
        return (await s.market.offers_of(node.node_id))[0].id


async def free(resources: Resources, node: Joined) -> int:
    async with scope(resources) as s:
        return (await s.market.offers_of(node.node_id))[0].gpus_free


async def test_a_quote_fixes_rate_and_ceiling_and_holds_the_devices(resources: Resources, owner: AsyncConnection) -> None:
    node, user = await join(resources, gpus=2, price=1001), await person(resources)
    held = await quote(resources, user, Needs(gpus=2))
    assert (held.rate_max, held.ceiling, held.gpus, held.price_per_hour) == (2002, 2002, 2, 1001)
    assert await free(resources, node) == 0
    lease = (await owner.execute(sa.text("SELECT DISTINCT purpose, holder_id FROM device_leases"))).one()
    assert tuple(lease) == ("quote", held.id)
    life = await owner.scalar(sa.text("SELECT extract(epoch FROM expires_at - created_at)::float8 FROM quotes"))
    assert 59 < life <= 61


async def test_a_budget_is_the_ceiling_and_a_price_limit_the_rate(resources: Resources) -> None:
    await join(resources, price=1000)
    held = await quote(resources, await person(resources), budget=77, price_max=1500)
    assert (held.ceiling, held.rate_max, held.price_per_hour) == (77, 1500, 1000)


@pytest.mark.parametrize(("more", "field"), [({"budget": 0}, "budget"), ({"budget": -5}, "budget"), ({"budget": 2**63}, "budget")])
async def test_a_budget_out_of_range_is_refused(resources: Resources, more: dict[str, object], field: str) -> None:
    await join(resources)
    with pytest.raises(Invalid) as caught:
        await quote(resources, await person(resources), **more)  # type: ignore[arg-type]
    assert caught.value.extra["field"] == field


async def test_the_best_offer_is_taken_first_and_the_next_when_it_is_gone(resources: Resources) -> None:
    dear, cheap = await join(resources, price=3000), await join(resources, price=1000)
    first = await quote(resources, await person(resources))
    second = await quote(resources, await person(resources))
    assert (first.node_id, second.node_id) == (cheap.node_id, dear.node_id)


async def test_a_users_new_quote_frees_the_old_one_and_may_take_the_same_device(resources: Resources, owner: AsyncConnection) -> None:
    await join(resources)
    user = await person(resources)
    first, second = await quote(resources, user), await quote(resources, user)
    assert first.device_ids == second.device_ids
    async with scope(resources) as s:
        assert (await s.market.get_quote(first.id, user)).state is QuoteState.EXPIRED
        assert (await s.market.get_quote(second.id, user)).state is QuoteState.OPEN
    assert await owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 1


async def test_a_named_offer_that_is_gone_says_what_is_next_best(resources: Resources) -> None:
    taken, other = await join(resources, price=1000), await join(resources, price=2000)
    wanted = await offer_id(resources, taken)
    await quote(resources, await person(resources), offer_id=wanted)
    with pytest.raises(OfferTaken) as caught:
        await quote(resources, await person(resources), offer_id=wanted)
    assert caught.value.extra["next_best"]["id"] == str(await offer_id(resources, other))
    async with scope(resources) as s:
        await s.providers.update_node(other.owner_id, other.node_id, paused=True)
    with pytest.raises(OfferTaken) as caught:
        await quote(resources, await person(resources), offer_id=wanted)
    assert caught.value.extra["next_best"] is None


async def test_a_named_offer_that_cannot_run_the_job_is_refused_with_what_would_help(resources: Resources) -> None:
    node = await join(resources, gib=8)
    await join(resources, gib=80, model="A100_80GB")
    with pytest.raises(NothingMatches) as caught:
        await quote(resources, await person(resources), Needs(vram_bytes=24 * GIB), offer_id=await offer_id(resources, node))
    assert caught.value.extra["relaxation"]["field"] == "vram_bytes"
    with pytest.raises(NoSuchOffer):
        await quote(resources, await person(resources), offer_id=uuid4())


async def test_nothing_matching_says_where_offers_were_lost_and_the_smallest_relaxation(resources: Resources) -> None:
    await join(resources, price=2200, region="us")
    await join(resources, price=5000, region="us")
    with pytest.raises(NothingMatches) as caught:
        await quote(resources, await person(resources), Needs(price_max=2000, regions=("us",)))
    assert caught.value.extra["relaxation"]["field"] == "price_max"
    assert caught.value.extra["relaxation"]["after"] == 2200
    assert caught.value.next_step == "Allow 2200 per GPU-hour instead of 2000."
    funnel = {step["constraint"]: step["left"] for step in caught.value.extra["funnel"]}
    assert (funnel["all offers"], funnel["region"], funnel["price"]) == (2, 2, 0)


async def test_an_empty_market_says_so(resources: Resources) -> None:
    with pytest.raises(NothingMatches) as caught:
        await quote(resources, await person(resources))
    assert caught.value.extra["reason"] == "no_offers"


async def test_a_race_for_one_device_has_one_winner(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources)
    wanted = await offer_id(resources, node)
    users = [await person(resources) for _ in range(8)]

    async def race(user: UserId) -> bool:
        try:
            await quote(resources, user, offer_id=wanted)
        except OfferTaken:
            return False
        return True

    assert sum(await asyncio.gather(*(race(user) for user in users))) == 1
    assert await owner.scalar(sa.text("SELECT count(*) FROM quotes WHERE state = 'open'")) == 1


async def test_users_who_swap_offers_do_not_deadlock(resources: Resources) -> None:
    offers = [await offer_id(resources, await join(resources, gpus=2)) for _ in range(2)]
    users = [await person(resources) for _ in range(2)]

    async def swap(user: UserId, turn: int) -> None:
        for n in range(8):
            try:
                await quote(resources, user, offer_id=offers[(turn + n) % 2])
            except OfferTaken:
                continue

    await asyncio.gather(swap(users[0], 0), swap(users[1], 1))


async def test_parallel_quotes_of_one_user_leave_one_open(resources: Resources, owner: AsyncConnection) -> None:
    for _ in range(3):
        await join(resources)
    user = await person(resources)
    await asyncio.gather(*(quote(resources, user) for _ in range(5)))
    assert await owner.scalar(sa.text("SELECT count(*) FROM quotes WHERE state = 'open'")) == 1
    assert await owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 1


async def test_a_quote_is_used_once_by_its_owner_while_it_stands(resources: Resources, owner: AsyncConnection) -> None:
    await join(resources)
    user, eve = await person(resources), await person(resources)
    held = await quote(resources, user)

    async def use(by: UserId) -> QubixError | None:
        try:
            async with scope(resources) as s:
                await s.market.use_quote(held.id, by)
        except QubixError as error:
            return error
        return None

    assert isinstance(await use(eve), NotFound)
    assert await use(user) is None
    assert isinstance(await use(user), QuoteGone)
    late = await quote(resources, eve) if await free_all(resources, owner) else None
    assert late is not None
    await owner.execute(sa.text("UPDATE quotes SET expires_at = now() - interval '1 second' WHERE id = :id"), {"id": late.id})
    async with scope(resources) as s:
        with pytest.raises(QuoteGone, match="run out"):
            await s.market.use_quote(late.id, eve)


async def test_of_two_quotes_of_one_account_the_older_one_says_that_the_newer_one_took_its_place(resources: Resources) -> None:
    for _ in range(2):
        await join(resources)
    user = await person(resources)
    first, second = await quote(resources, user), await quote(resources, user)
    async with scope(resources) as s:
        with pytest.raises(QuoteGone, match="one quote at a time") as refused:
            await s.market.use_quote(first.id, user)
        assert "Run it again" in refused.value.next_step
        await s.market.use_quote(second.id, user)
        with pytest.raises(QuoteGone, match="made of this quote already"):
            await s.market.use_quote(second.id, user)


async def free_all(resources: Resources, owner: AsyncConnection) -> bool:
    await owner.execute(sa.text("DELETE FROM device_leases"))
    return True


async def test_another_users_quote_does_not_exist(resources: Resources) -> None:
    await join(resources)
    held, eve = await quote(resources, await person(resources)), await person(resources)
    async with scope(resources) as s:
        for act in (s.market.get_quote(held.id, eve), s.market.use_quote(held.id, eve), s.market.drop_quote(held.id, eve)):
            with pytest.raises(NotFound):
                await act


async def test_a_dropped_quote_gives_its_devices_back(resources: Resources) -> None:
    node, user = await join(resources), await person(resources)
    held = await quote(resources, user)
    async with scope(resources) as s:
        await s.market.drop_quote(held.id, user)
        await s.market.drop_quote(held.id, user)
    assert await free(resources, node) == 1


async def test_a_price_change_touches_no_quote(resources: Resources) -> None:
    node, user = await join(resources, price=1000), await person(resources)
    held = await quote(resources, user)
    async with scope(resources) as s:
        await s.market.set_price(node.owner_id, node.node_id, 9000)
        assert (await s.market.get_quote(held.id, user)).rate_max == 1000


async def test_quotes_that_ran_out_are_swept(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> None:
    await join(resources)
    await quote(resources, await person(resources))
    await owner.execute(sa.text("UPDATE quotes SET expires_at = now() - interval '2 days'"))
    async with scope(controller_resources) as s:
        assert await s.market.sweep() == 1
        assert await s.market.sweep() == 0
    assert await owner.scalar(sa.text("SELECT count(*) FROM quotes")) == 0


async def test_two_or_three_offers_are_compared_in_the_order_asked(resources: Resources) -> None:
    ids = [await offer_id(resources, await join(resources, price=price)) for price in (3, 1, 2)]
    async with scope(resources) as s:
        assert [o.price_per_hour for o in await s.market.compare(ids)] == [3, 1, 2]  # type: ignore[arg-type]
        for wrong in ([ids[0]], [ids[0], ids[0]], [*ids, uuid4()]):
            with pytest.raises(Invalid):
                await s.market.compare(wrong)  # type: ignore[arg-type]
        with pytest.raises(NoSuchOffer):
            await s.market.compare([ids[0], uuid4()])  # type: ignore[list-item]


async def test_models_and_providers_are_listed_with_counts_and_price_ranges(resources: Resources) -> None:
    user = await person(resources)
    await join(resources, owner_id=user, name="acme", gpus=2, price=1000)
    await join(resources, owner_id=user, price=3000)
    await join(resources, model="RTX_3090", name="other", price=500)
    async with scope(resources) as s:
        models, providers = await s.market.models(), await s.market.providers()
    assert [(g.key, g.offers, g.gpus, g.gpus_free, g.price_min, g.price_max) for g in models] == [
        ("RTX_3090", 1, 1, 1, 500, 500),
        ("RTX_4090", 2, 3, 3, 1000, 3000),
    ]
    assert [(g.key.partition("/")[0], g.offers, g.members) for g in providers] == [("acme", 2, ("RTX_4090",)), ("other", 1, ("RTX_3090",))]
