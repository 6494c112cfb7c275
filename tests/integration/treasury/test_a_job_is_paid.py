"""A job paid on the chain, from the transaction on the devnet to the attempt on a node: treasury and controller by hand."""

from __future__ import annotations

import itertools
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.jobs.model import JobState, Pay
from qubix.kernel.ids import UserId
from tests.fakes.voices import controller, look, submit, voice
from tests.integration.chains.devnet_process import Person
from tests.integration.treasury.till import PAYER, Till

FUNDED = (PAYER,)


async def test_p_b21_b17_the_count_follows_the_chain_to_3_and_the_lock_is_traced_to_its_transaction(
    till: Till, resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user, address = await till.user()
    node, control = await voice(resources), await controller(controller_resources)
    await till.advance(1)
    job = await submit(resources, UserId(user), pay=Pay.CHAIN)
    assert job.state is JobState.AWAITING_FUNDS
    paid = till.pay(address, job.ceiling, payload=f"qubix:job:{job.id}".encode())
    counts: list[int] = []
    for _ in range(15):
        await till.advance(1)
        await control.step()
        async with scope(resources) as s:
            payment = await s.funding.payment(user, job.id)
        assert payment is not None
        counts.append(payment.request.shown.confirmations)
        past = await till.value("SELECT processed FROM chain_state") - paid.tick
        assert counts[-1] <= max(0, past), "never ahead of what the archive has"
        assert (counts[-1] == 3) == (await look(resources, job)).state.live, "three of three is money in the escrow"
        assert len(await node.desired()) == (counts[-1] == 3), "and nothing runs before"
    assert [count for count, _ in itertools.groupby(counts)] == [0, 1, 2, 3]
    async with scope(resources) as s:
        assert await s.funding.tx_ids(user, job.id) == (paid.id,)
    assert await locked(owner, job.id) == job.ceiling
    assert await till.wallet(user) == 0
    await till.sound()


async def test_p_b21_a_payment_that_does_not_fly_is_shown_by_no_count_and_funds_nothing(
    till: Till, resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user, address = await till.user()
    await voice(resources)
    control = await controller(controller_resources)
    await till.advance(1)
    job = await submit(resources, UserId(user), pay=Pay.CHAIN)
    till.pay(address, job.ceiling, payer=Person(55_555))
    for _ in range(12):
        await till.advance(1)
        await control.step()
    async with scope(resources) as s:
        payment = await s.funding.payment(user, job.id)
    assert payment is not None
    assert (payment.request.shown.confirmations, payment.request.shown.missing) == (0, job.ceiling)
    assert await locked(owner, job.id) == 0


async def locked(owner: AsyncConnection, job_id: UUID) -> int:
    return int(await owner.scalar(sa.text("SELECT funded FROM escrows WHERE id = :id"), {"id": job_id}) or 0)
