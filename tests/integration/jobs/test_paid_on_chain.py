"""Jobs paid on the chain, on the real database: the payments are written down as the treasury does it."""

from __future__ import annotations

import asyncio
import dataclasses
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.controller import Controller
from qubix.jobs.funding import Payment
from qubix.jobs.model import Job, JobRequest, JobState, Pay, TooManyUnpaid
from qubix.kernel.errors import QubixError, Unavailable
from qubix.kernel.ids import UserId
from qubix.ledger.model import WrongNetwork
from qubix.treasury.model import NotReconciled
from tests.fakes import deposits
from tests.fakes.deposits import seen
from tests.fakes.nodes import person
from tests.fakes.voices import Voice, age, consumer, controller, look, posted, problems, submit, voice


@dataclasses.dataclass
class World:
    resources: Resources
    owner: AsyncConnection
    user: UserId
    node: Voice
    control: Controller

    async def job(self, **members: object) -> Job:
        """A job for 600 that waits for its payment."""
        return await submit(self.resources, self.user, **{"pay": Pay.CHAIN, **members})

    async def payment(self, job: Job) -> Payment:
        async with scope(self.resources) as s:
            found = await s.funding.payment(self.user, job.id)
        assert found is not None
        return found

    async def address(self) -> str:
        async with scope(self.resources) as s:
            return await s.treasury.deposit_address(self.user)

    async def state(self, job: Job) -> JobState:
        return (await look(self.resources, job)).state

    async def escrow(self, job: Job) -> tuple[str, int]:
        row = (await self.owner.execute(sa.text("SELECT state, funded FROM escrows WHERE id = :id"), {"id": job.id})).one()
        return row.state, row.funded

    async def free(self) -> int:
        async with scope(self.resources) as s:
            return (await s.market.offers_of(self.node.node_id))[0].gpus_free

    async def told(self, job: Job) -> list[dict[str, object]]:
        """The payment's events so far."""
        rows = await self.owner.execute(
            sa.text(
                "SELECT payload FROM events WHERE type = 'ESCROW_UPDATE' AND subject_id = :id AND payload ->> 'state' = 'PENDING' ORDER BY id"
            ),
            {"id": job.id},
        )
        return [row.payload for row in rows]


@pytest.fixture
async def world(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> World:
    await owner.execute(sa.text("SELECT found_ledger('devnet')"))
    user = await person(resources)
    async with scope(resources) as s:
        await s.ledger.open_wallets(user)
    await deposits.addresses(owner)
    await deposits.chain(owner)
    return World(resources, owner, user, await voice(resources, gpus=4), await controller(controller_resources))


async def test_p_b21_a_job_waits_for_its_payment_is_told_0_to_3_and_runs_once_it_is_in_the_wallet(world: World) -> None:
    job = await world.job()
    assert (job.state, job.ceiling) == (JobState.AWAITING_FUNDS, 600)
    assert await world.escrow(job) == ("PENDING", 0)
    assert await world.free() == 3, "its quote keeps the device"
    asked = await world.payment(job)
    assert (asked.request.amount, asked.request.address, asked.request.memo) == (600, await world.address(), f"qubix:job:{job.id}")
    assert (asked.request.shown.missing, asked.request.shown.confirmations, asked.expected_wait_s) == (600, 0, 26)
    await world.control.step()
    assert await world.told(job) == []
    assert await world.node.desired() == ()

    paid = await seen(world.owner, asked.request.address, 600, job=job.id)
    counts = []
    for proved in (0, 1, 1, 2):
        await paid.confirmed(proved)
        await world.control.step()
        counts.append((await world.payment(job)).request.shown.confirmations)
    assert counts == [0, 1, 1, 2]
    assert (await world.payment(job)).request.shown.missing == 0, "it is on its way"
    assert await world.node.desired() == (), "nothing runs before the money is in the wallet"
    await paid.credited()
    await world.control.step()
    told = await world.told(job)
    assert [event["confirmations"] for event in told] == [0, 1, 2]
    assert await world.escrow(job) == ("LOCKED", 600)
    (attempt,) = await world.node.desired()
    after = await world.payment(job)
    assert (after.request.shown.confirmations, after.request.shown.received, after.request.shown.tx_ids) == (3, 600, (paid.tx_id,))
    await world.node.start(attempt)
    await world.node.finished(attempt)
    await world.control.step()
    async with scope(world.resources) as s:
        receipt = await s.jobs.receipt(world.user, job.id)
        whats = [entry.what for entry in await s.jobs.timeline(world.user, job.id)]
    assert receipt.tx_ids == (paid.tx_id,), "a lock on chain can be traced to its job"
    assert whats[:2] == ["created", "funded"]
    assert await problems(world.owner) == []


async def test_the_treasury_is_told_that_somebody_waits(world: World) -> None:
    heard = world.resources.listen("deposits", idle_s=5)
    await heard._ensure()
    await world.job()
    assert await heard.__anext__()


async def test_p_b17_the_payments_memo_names_the_job_and_the_job_its_payments(world: World) -> None:
    first, second = await world.job(), await world.job()
    address = await world.address()
    mine = await seen(world.owner, address, 600, job=second.id)
    await mine.credited()
    await world.control.step()
    assert (await world.state(first), await world.state(second)) == (JobState.AWAITING_FUNDS, JobState.ASSIGNED), (
        "it was paid for the second"
    )
    unnamed = await seen(world.owner, address, 600)
    await unnamed.credited()
    await world.control.step()
    assert (await world.payment(first)).request.shown.tx_ids == (unnamed.tx_id,)
    assert (await world.payment(second)).request.shown.tx_ids == (mine.tx_id,)
    assert await problems(world.owner) == []


async def test_two_waiting_jobs_are_never_funded_from_the_same_money(world: World) -> None:
    first, second = await world.job(), await world.job()
    assert (await world.payment(second)).request.amount == 600, "the first one's money is not counted twice"
    paid = await seen(world.owner, await world.address(), 700)
    await paid.credited()
    await world.control.step()
    assert (await world.state(first), await world.state(second)) == (JobState.ASSIGNED, JobState.AWAITING_FUNDS)
    assert await posted(world.owner, world.user) == 100
    assert (await world.payment(second)).request.shown.missing == 500, "the rest of the first payment is in the wallet"
    await (await seen(world.owner, await world.address(), 500)).credited()
    await world.control.step()
    assert await world.state(second) is JobState.ASSIGNED
    assert await problems(world.owner) == []


async def test_an_underpayment_is_in_the_wallet_and_the_missing_amount_is_told_once(world: World) -> None:
    job = await world.job()
    await (await seen(world.owner, await world.address(), 400)).credited()
    for _ in range(3):
        await world.control.step()
    assert [(event["received"], event["missing"]) for event in await world.told(job)] == [(400, 200)]
    assert await world.state(job) is JobState.AWAITING_FUNDS
    await (await seen(world.owner, await world.address(), 200)).credited()
    await world.control.step()
    assert await world.escrow(job) == ("LOCKED", 600)
    assert len((await world.payment(job)).request.shown.tx_ids) == 2


async def test_of_an_overpayment_the_rest_stays_in_the_wallet(world: World) -> None:
    job = await world.job()
    await (await seen(world.owner, await world.address(), 1000)).credited()
    await world.control.step()
    assert await world.escrow(job) == ("LOCKED", 600)
    assert await posted(world.owner, world.user) == 400


async def test_a_late_payment_stays_in_the_wallet_and_funds_the_job_that_is_made_again(world: World) -> None:
    job = await world.job()
    await age(world.owner, 181)
    await world.control.step()
    over = await look(world.resources, job)
    assert (over.state, over.reason) == (JobState.CANCELLED, "expired")
    assert await world.escrow(job) == ("REFUNDED", 0)
    assert await world.free() == 4, "the device is back on the market"
    late = await seen(world.owner, await world.address(), 600, job=job.id)
    await late.credited()
    await world.control.step()
    assert await world.state(job) is JobState.CANCELLED
    assert await posted(world.owner, world.user) == 600
    assert [arrival.tx_id for arrival in (await world.payment(job)).arrivals] == [late.tx_id], "it is shown with the job that it names"
    again = await world.job()
    assert (again.state, await world.escrow(again)) == (JobState.PENDING, ("LOCKED", 600)), "the wallet holds it already"
    assert await problems(world.owner) == []


async def test_the_quote_is_extended_once_when_its_payment_is_first_seen(world: World) -> None:
    job = await world.job()
    before = (await look(world.resources, job)).wait_until
    paid = await seen(world.owner, await world.address(), 1)
    await world.control.step()
    extended = (await look(world.resources, job)).wait_until
    assert before is not None
    assert extended is not None
    assert 115 < (extended - before).total_seconds() < 125, "from 3 minutes to 5"
    lease = "SELECT extract(epoch FROM upper(during) - clock_timestamp())::float8 FROM device_leases"
    assert 295 < float(await world.owner.scalar(sa.text(lease)) or 0) <= 300
    await age(world.owner, 100)
    await paid.confirmed(1)
    await seen(world.owner, await world.address(), 1)
    await world.control.step()
    assert ((await look(world.resources, job)).wait_until or extended) < extended, "a second payment extends nothing"
    await age(world.owner, 201)
    await world.control.step()
    assert await world.state(job) is JobState.CANCELLED


async def test_the_owner_cancels_while_it_waits_and_the_device_is_free_at_once(world: World) -> None:
    job = await world.job()
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
    paid = await seen(world.owner, await world.address(), 600, job=job.id)
    await paid.credited()
    await world.control.step()
    over = await look(world.resources, job)
    assert (over.state, over.reason) == (JobState.CANCELLED, "cancelled")
    assert await world.escrow(job) == ("REFUNDED", 0)
    assert (await world.free(), await posted(world.owner, world.user)) == (4, 600)
    assert await problems(world.owner) == []


async def test_expiry_against_funding_has_one_winner_and_the_money_is_in_one_place(world: World) -> None:
    outcomes = set()
    for n in range(12):
        job = await world.job(budget=10)
        await (await seen(world.owner, await world.address(), 10, job=job.id)).credited()
        ends = "UPDATE jobs SET wait_until = clock_timestamp() + make_interval(secs => :s) WHERE id = :id"
        await world.owner.execute(sa.text(ends), {"s": (n - 4) / 500, "id": job.id})
        before = await posted(world.owner, world.user)

        async def one(what: str, job_id: UUID = job.id) -> bool:
            async with scope(world.control._resources) as s:
                return await (s.funding.look(job_id) if what == "fund" else s.ends.end_idle(job_id))

        assert sum(await asyncio.gather(*(one(what) for what in ("fund", "end", "fund", "end")))) <= 1
        await asyncio.sleep(0.02)
        await world.control.step()
        outcome = await world.escrow(job)
        assert await posted(world.owner, world.user) == before - outcome[1]
        if outcome[0] == "REFUNDED":
            async with scope(world.resources) as s:
                await s.jobs.create(world.user, JobRequest("mnist", budget=before, needs={"vram_bytes": 1 << 43}))
        outcomes.add(outcome)
    assert outcomes <= {("LOCKED", 10), ("REFUNDED", 0)}
    assert await problems(world.owner) == []


async def test_p_b16_no_attempt_can_be_inserted_for_a_job_that_waits_for_its_payment(world: World) -> None:
    job = await world.job()
    await seen(world.owner, await world.address(), 600, job=job.id)
    await world.owner.execute(
        sa.text("UPDATE jobs SET state = 'PENDING', pending_at = now(), wait_until = now() + interval '1 h' WHERE id = :id"), {"id": job.id}
    )
    await world.control.place()
    assert await world.node.desired() == ()
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM attempts")) == 0


async def test_money_spent_between_the_look_and_the_funding_leaves_the_job_waiting(world: World) -> None:
    job = await world.job()
    await (await seen(world.owner, await world.address(), 600)).credited()
    await submit(world.resources, world.user, budget=100)
    await world.control.step()
    assert await world.state(job) is JobState.AWAITING_FUNDS
    assert (await world.payment(job)).request.shown.missing == 100


async def test_after_a_restore_no_job_is_paid_from_a_wallet_before_the_chain_was_reconciled(world: World) -> None:
    job = await world.job()
    await (await seen(world.owner, await world.address(), 900)).credited()
    await world.owner.execute(
        sa.text("""INSERT INTO payout_halts (subject, rule, figures, needs_person) VALUES ('*', 'restored', '{"restored": [{}]}', true)""")
    )
    await world.control.step()
    assert await world.state(job) is JobState.AWAITING_FUNDS, "what the wallet shows may have been paid out since the backup"
    with pytest.raises(NotReconciled) as refused:
        await submit(world.resources, world.user, budget=100)
    assert refused.value.next_step
    await world.owner.execute(sa.text("DELETE FROM payout_halts"))
    await world.control.step()
    assert await world.escrow(job) == ("LOCKED", 600)
    await submit(world.resources, world.user, budget=100)


async def test_a_payment_that_is_gone_lets_the_shown_count_stand_and_its_amount_be_missing_again(world: World) -> None:
    job = await world.job()
    paid = await seen(world.owner, await world.address(), 600)
    await paid.confirmed(2)
    await world.control.step()
    await paid.gone()
    await world.control.step()
    shown = (await world.payment(job)).request.shown
    assert (shown.confirmations, shown.missing, shown.tx_ids) == (2, 600, ())
    with pytest.raises(sa.exc.IntegrityError):
        await world.owner.execute(sa.text("UPDATE payment_requests SET confirmations = 1"))


async def test_an_account_has_few_jobs_that_nobody_has_paid_for(world: World) -> None:
    answers = await asyncio.gather(*(world.job() for _ in range(5)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Job"] * 3 + ["TooManyUnpaid"] * 2
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM jobs")) == 3
    assert await world.free() == 1
    with pytest.raises(TooManyUnpaid):
        await world.job()


async def test_a_job_that_nothing_fits_may_be_paid_on_the_chain_too(world: World) -> None:
    job = await world.job(needs={"vram_bytes": 1 << 43}, budget=50)
    assert (job.state, job.quote_id) == (JobState.AWAITING_FUNDS, None)
    await (await seen(world.owner, await world.address(), 50)).credited()
    await world.control.step()
    pending = await look(world.resources, job)
    assert pending.state is JobState.PENDING
    assert pending.unplaceable


async def test_without_a_chain_or_an_address_it_is_refused_and_nothing_is_made(resources: Resources, owner: AsyncConnection) -> None:
    user = await consumer(resources, owner)
    await voice(resources)
    with pytest.raises(WrongNetwork):
        await submit(resources, user, pay=Pay.CHAIN)
    assert await owner.scalar(sa.text("SELECT count(*) FROM jobs")) == 0


async def test_while_the_signer_has_made_no_address_the_consumer_tries_again(world: World) -> None:
    await world.owner.execute(sa.text("ALTER TABLE chain_addresses DISABLE TRIGGER USER"))
    await world.owner.execute(sa.text("DELETE FROM chain_addresses"))
    with pytest.raises(Unavailable) as refused:
        await world.job()
    assert isinstance(refused.value, QubixError)
    assert refused.value.next_step
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 0


def test_a_request_pays_from_the_wallet_unless_it_says_otherwise() -> None:
    assert JobRequest("mnist").pay is Pay.WALLET
