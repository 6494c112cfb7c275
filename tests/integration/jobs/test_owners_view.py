"""What an owner does with jobs: inputs, pages, logs, quotes, budgets."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.jobs.model import InputRequest, JobState
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.ids import UserId
from qubix.market.model import Needs, OfferTaken, QuoteGone
from tests.fakes.nodes import join
from tests.fakes.voices import consumer, controller, look, stream, submit, voice


async def upload(resources: Resources, user: UserId, name: str, content: bytes) -> InputRequest:
    async with scope(resources) as s:
        admission = await s.intake.admit(user, name)
    blob = await resources.blobs.put(stream(content), size_max_bytes=10**6)
    async with scope(resources) as s:
        return InputRequest(name, (await s.intake.record(user, admission, blob)).id)


async def test_an_input_reaches_the_attempt_by_its_hash(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    job = await submit(resources, user, kind="script", inputs=(await upload(resources, user, "main.py", b"print(1)"),))
    await (await controller(controller_resources)).step()
    (attempt,) = await node.desired()
    (given,) = attempt.spec.inputs
    assert (attempt.spec.kind, given.name, given.size) == ("script", "main.py", 8)
    async with scope(resources) as s:
        assert await s.frames.input(node.token, attempt.id, attempt.fence, "main.py") == given
        with pytest.raises(NotFound):
            await s.frames.input(node.token, attempt.id, attempt.fence, "other.py")
        assert [item.name for item in await s.jobs.inputs(user, job.id)] == ["main.py"]
    assert b"".join([chunk async for chunk in resources.blobs.open(given.sha256)]) == b"print(1)"


async def test_anothers_upload_is_not_found_and_nothing_is_made(resources: Resources, owner: AsyncConnection) -> None:
    user, other = await consumer(resources, owner), await consumer(resources, owner)
    await voice(resources)
    with pytest.raises(NotFound):
        await submit(resources, other, kind="script", inputs=(await upload(resources, user, "main.py", b"x"),))
    assert await owner.scalar(sa.text("SELECT count(*) FROM escrows")) == 0


async def test_a_quote_is_used_by_one_job_and_its_devices_go_to_it(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    dear, cheap = await voice(resources, price=5000), await voice(resources, price=3000)
    async with scope(resources) as s:
        (offer,) = await s.market.offers_of(dear.node_id)
        quote = await s.market.quote(user, Needs(), duration_max_s=60, offer_id=offer.id)
    job = await submit(resources, user, quote_id=quote.id, duration_max_s=None)
    assert (job.rate_max, job.ceiling, job.duration_max_s) == (5000, quote.ceiling, 60)
    await (await controller(controller_resources)).step()
    assert len(await dear.desired()) == 1
    assert await cheap.desired() == ()
    with pytest.raises(QuoteGone):
        await submit(resources, user, quote_id=quote.id)
    stranger = await consumer(resources, owner)
    with pytest.raises(NotFound):
        await submit(resources, stranger, quote_id=quote.id)


async def test_an_offer_that_is_gone_is_a_conflict_with_the_next_best(resources: Resources, owner: AsyncConnection) -> None:
    user, other = await consumer(resources, owner), await consumer(resources, owner)
    first, second = await voice(resources, price=3000), await voice(resources, price=4000)
    async with scope(resources) as s:
        (offer,) = await s.market.offers_of(first.node_id)
        (best,) = await s.market.offers_of(second.node_id)
    await submit(resources, other, offer_id=offer.id)
    with pytest.raises(OfferTaken) as refused:
        await submit(resources, user, offer_id=offer.id)
    assert refused.value.extra["next_best"]["id"] == str(best.id)
    assert await owner.scalar(sa.text("SELECT count(*) FROM jobs")) == 1


async def test_a_budget_is_the_ceiling_and_says_how_long_it_lasts(resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    await voice(resources, price=3600)
    job = await submit(resources, user, budget=120, duration_max_s=None)
    assert (job.ceiling, job.duration_max_s) == (120, 120)
    await voice(resources, price=3600)
    shorter = await submit(resources, user, budget=120, duration_max_s=30)
    assert (shorter.ceiling, shorter.duration_max_s) == (120, 30)


async def test_a_budget_that_pays_for_less_than_a_second_is_refused(resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    await voice(resources, price=36_000)
    with pytest.raises(Invalid) as refused:
        await submit(resources, user, budget=9)
    assert refused.value.extra["field"] == "budget"


async def test_a_job_without_any_offer_needs_a_price(resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    with pytest.raises(Invalid) as refused:
        await submit(resources, user)
    assert refused.value.extra["field"] == "price_max"
    job = await submit(resources, user, price_max=1000)
    assert job.state is JobState.PENDING
    assert job.unplaceable is not None
    assert job.unplaceable["code"] == "no_offers"


async def test_a_waiting_job_starts_when_a_node_joins(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user = await consumer(resources, owner)
    control = await controller(controller_resources)
    job = await submit(resources, user, price_max=4000)
    await control.step()
    assert (await look(resources, job)).state is JobState.PENDING
    await join(resources, price=5000)
    node = await voice(resources, price=4000)
    await control.step()
    (attempt,) = await node.desired()
    assert (await look(resources, job)).state is JobState.ASSIGNED
    assert attempt.fence == 1


async def test_jobs_and_logs_are_read_page_by_page(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    control = await controller(controller_resources)
    jobs = [await submit(resources, user, price_max=3600, name=f"job {n}") for n in range(5)]
    async with scope(resources) as s:
        first = await s.jobs.page(user, limit=3)
        rest = await s.jobs.page(user, before=first[-1].id, limit=3)
        assert [job.id for job in first + rest] == [job.id for job in reversed(jobs)]
        assert await s.jobs.page(user, states=[JobState.RUNNING]) == []
        assert await s.jobs.page(UserId(uuid4())) == []
    await control.step()
    (attempt,) = await node.desired()
    await node.start(attempt)
    for n in range(7):
        await node.log(attempt, f"{n}\n", offset=2 * n)
    async with scope(resources) as s:
        (running,) = await s.jobs.page(user, states=[JobState.RUNNING])
        pages, after = [], 0
        while page := await s.jobs.logs(user, running.id, after=after, limit=3):
            pages.append([line.text for line in page])
            after = page[-1].position
        assert await s.jobs.logs(user, running.id, stream="err") == []
    assert pages == [["0\n", "1\n", "2\n"], ["3\n", "4\n", "5\n"], ["6\n"]]


async def test_a_log_may_hold_any_text(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    node = await voice(resources)
    job = await submit(resources, user)
    control = await controller(controller_resources)
    await control.step()
    (attempt,) = await node.desired()
    await node.start(attempt)
    text = "a\0é\u2028😀\n"
    await node.log(attempt, text)
    await node.finished(attempt, log_ends={"out": len(text.encode())})
    await control.step()
    assert (await look(resources, job)).state is JobState.COMPLETED
