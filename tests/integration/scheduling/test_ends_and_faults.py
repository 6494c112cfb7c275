"""What follows an end: retries from checkpoints, refunds by fault, the wait for a match, one notice of the end."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qubix.agent.protocol import Exit
from qubix.bootstrap import Resources, scope
from qubix.jobs.model import AttemptState, Fault, Job, JobState, Receipt
from qubix.kernel.errors import Conflict, Invalid, NotFound, Unpaid
from qubix.market.model import Needs
from qubix.postgres import outbox
from tests.conftest import Database
from tests.fakes.nodes import person
from tests.fakes.voices import age, consumer, controller, look, posted, problems, submit, voice
from tests.integration.scheduling.conftest import World


async def receipt_of(world: World, job: Job) -> Receipt:
    async with scope(world.resources) as s:
        return await s.jobs.receipt(world.user, job.id)


async def test_a_lost_job_resumes_elsewhere_from_its_last_checkpoint_and_pays_what_it_preserved(world: World) -> None:
    job = await world.job(price_max=7200)
    (first,) = await world.node.desired()
    await world.node.start(first)
    await age(world.owner, 40)
    await world.node.checkpoint(first, 1, ran_ms=10_000, pct=20)
    await world.node.checkpoint(first, 2, ran_ms=20_000, pct=40)
    await world.node.status(first)
    await world.node.progress(first, 55)
    await world.owner.execute(sa.text("UPDATE nodes SET dead_at = clock_timestamp() WHERE id = :id"), {"id": world.node.node_id})
    second_node = await voice(world.resources, price=7200)
    await world.node.disconnect()
    await world.control.step()
    (second,) = await second_node.desired()
    assert second.spec.restore is not None
    assert (second.fence, second.spec.restore.number, second.spec.progress_from) == (2, 2, 55.0)
    assert await world.owner.scalar(sa.text("SELECT progress FROM attempts WHERE id = :id"), {"id": second.id}) == 40
    async with scope(world.resources) as s:
        restored = await s.frames.checkpoint(second_node.token, second.id, second.fence)
    assert restored.sha256 == second.spec.restore.sha256
    assert second.limit_ms == min(600_000, (1200 - 20) * 3_600_000 // 7200)
    await second_node.start(second)
    await age(world.owner, 10)
    await second_node.finished(second)
    await world.control.step()
    receipt = await receipt_of(world, job)
    assert [(a.status, a.resumed_from, a.fault) for a in receipt.attempts] == [
        (AttemptState.LOST, None, Fault.PROVIDER),
        (AttemptState.SUCCEEDED, 2, Fault.NONE),
    ]
    assert receipt.attempts[0].charge == 20
    assert 20 <= receipt.attempts[1].charge <= 24
    assert receipt.escrow_state == "RELEASED"
    assert await problems(world.owner) == []


async def test_a_job_whose_rest_pays_for_no_dearer_node_is_told_so_and_not_planned_for_ever(world: World) -> None:
    job = await world.job(budget=20, price_max=36_000, wait_s=600)
    (first,) = await world.node.desired()
    await world.node.start(first)
    await age(world.owner, 15)
    await world.node.checkpoint(first, 1, ran_ms=15_000, pct=20)
    await voice(world.resources, price=36_000)
    await age(world.owner, 21)
    await world.control.step()
    await world.owner.execute(sa.text("UPDATE nodes SET state = 'left' WHERE id = :id"), {"id": world.node.node_id})
    assert await world.control.place() == 0
    waits = await look(world.resources, job)
    assert waits.state is JobState.PENDING
    assert waits.unplaceable is not None
    assert (waits.unplaceable["code"], waits.unplaceable["relaxation"]) == ("budget", {"budget": 25})


@pytest.mark.parametrize("wait_s", [20, 600])
async def test_the_only_node_gets_a_job_that_it_lost_again_before_the_wait_is_over(world: World, wait_s: int) -> None:
    job = await world.job(wait_s=wait_s)
    (first,) = await world.node.desired()
    await world.node.start(first)
    await age(world.owner, 21)
    await world.control.step()
    await world.node.status()
    await world.control.step()
    assert await world.node.desired() == (), "barred at first: another node may come"
    bar_s = min(60, wait_s / 2) + 1
    await age(world.owner, bar_s)
    await world.owner.execute(
        sa.text("UPDATE attempts SET ended_at = ended_at - make_interval(secs => :bar) WHERE ended_at IS NOT NULL"), {"bar": bar_s}
    )
    await world.node.status()
    await world.control.step()
    (second,) = await world.node.desired()
    assert (second.fence, (await look(world.resources, job)).state) == (2, JobState.ASSIGNED)


@pytest.mark.parametrize(("fault", "again"), [("platform", True), ("provider", False)])
async def test_a_node_that_lost_a_job_by_the_platforms_fault_may_have_it_again_soon(world: World, fault: str, again: bool) -> None:
    await world.job()
    (first,) = await world.node.desired()
    await world.node.start(first)
    await age(world.owner, 21)
    await world.control.step()
    moved = "UPDATE attempts SET fault = :fault, ended_at = ended_at - interval '16 seconds' WHERE ended_at IS NOT NULL"
    await world.owner.execute(sa.text(moved), {"fault": fault})
    await world.node.status()
    await world.control.step()
    assert bool(await world.node.desired()) is again


async def test_a_checkpoint_that_cannot_be_restored_is_not_paid_and_not_tried_again(world: World) -> None:
    job = await world.job()
    (first,) = await world.node.desired()
    await world.node.start(first)
    await age(world.owner, 40)
    await world.node.checkpoint(first, 1, ran_ms=20_000)
    await age(world.owner, 21)
    other = await voice(world.resources)
    await world.control.step()
    (second,) = await other.desired()
    assert second.spec.restore is not None
    await other.start(second)
    await other.finished(second, Exit.EXITED, exit_code=3, restore_failed=True)
    await world.control.step()
    assert (await world.node.desired()) + (await other.desired()) == ()
    await world.owner.execute(sa.text("UPDATE attempts SET ended_at = ended_at - interval '1 hour' WHERE ended_at IS NOT NULL"))
    await world.node.status()
    await world.control.step()
    (third,) = (await world.node.desired()) + (await other.desired())
    assert third.spec.restore is None
    assert [a.charge for a in (await receipt_of(world, job)).attempts[:2]] == [0, 0]


async def test_who_was_given_no_checkpoint_cannot_claim_that_it_was_broken(world: World) -> None:
    job = await world.job()
    (only,) = await world.node.desired()
    await world.node.start(only)
    await age(world.owner, 40)
    await world.node.finished(only, Exit.EXITED, exit_code=3, restore_failed=True)
    await world.control.step()
    ended = await look(world.resources, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "exit_code")
    (attempt,) = (await receipt_of(world, job)).attempts
    assert attempt.fault is Fault.CONSUMER
    assert attempt.charge > 0


async def test_after_three_lost_attempts_the_job_fails_and_is_refunded(world: World) -> None:
    nodes = [world.node, await voice(world.resources), await voice(world.resources)]
    job = await world.job()
    for _ in range(3):
        running = [(node, attempt) for node in nodes for attempt in await node.desired()]
        ((node, attempt),) = running
        await node.start(attempt)
        await age(world.owner, 21)
        await world.control.step()
    ended = await look(world.resources, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "lease_expired")
    receipt = await receipt_of(world, job)
    assert len(receipt.attempts) == 3
    assert len({a.node_id for a in receipt.attempts}) == 3, "each attempt ran on another node"
    assert (receipt.charged, receipt.refunded) == (0, 600)


@pytest.mark.parametrize(
    ("exit", "members"),
    [(Exit.EXITED, {"exit_code": 1}), (Exit.OUT_OF_MEMORY, {}), (Exit.DISK_LIMIT, {}), (Exit.OUTPUT_FLOOD, {})],
)
async def test_the_consumers_own_failure_is_paid_as_metered_and_not_retried(world: World, exit: Exit, members: dict[str, int]) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 30)
    await world.node.finished(attempt, exit, **members)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.FAILED
    receipt = await receipt_of(world, job)
    assert len(receipt.attempts) == 1
    assert receipt.attempts[0].fault is Fault.CONSUMER
    assert 30 <= receipt.charged <= 32
    assert receipt.escrow_state == "SPLIT"


async def test_a_job_that_reached_its_time_limit_is_paid_for_it_however_late_that_is_heard(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, attempt.limit_ms / 1000 + 20)
    await world.node.finished(attempt, Exit.TIME_LIMIT, agent_ms=attempt.limit_ms + 100)
    await world.control.step()
    assert (await look(world.resources, job)).reason == "time_limit"
    receipt = await receipt_of(world, job)
    assert (receipt.attempts[0].fault, receipt.charged) == (Fault.CONSUMER, 600)


async def test_a_node_that_calls_the_time_over_too_early_answers_for_it(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 60)
    await world.node.finished(attempt, Exit.TIME_LIMIT, agent_ms=attempt.limit_ms)
    await world.control.conclude()
    assert (await receipt_of(world, job)).attempts[0].fault is Fault.PROVIDER
    assert (await look(world.resources, job)).state is JobState.PENDING


async def test_when_the_platform_cannot_store_results_neither_side_answers_for_it(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    async with scope(world.resources) as s:
        await s.frames.not_stored(world.node.token, attempt.id, attempt.fence)
    await age(world.owner, 30 + attempt.limit_ms / 1000 + 3600)
    await world.node.status(attempt)
    await world.control.sweep()
    (lost,) = (await receipt_of(world, job)).attempts
    assert (lost.fault, lost.reason, lost.charge) == (Fault.PLATFORM, "storage_failed", 0)
    assert (await look(world.resources, job)).state is JobState.PENDING
    async with scope(world.resources) as s:
        reputation = await s.providers.reputation(world.node.provider_id)
    assert (reputation.ended, reputation.faulted) == (1, 0)


async def test_storage_that_took_the_bytes_later_is_nobodys_excuse(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    async with scope(world.resources) as s:
        await s.frames.not_stored(world.node.token, attempt.id, attempt.fence)
    await world.node.put(attempt, b"taken now")
    await age(world.owner, 21)
    await world.control.sweep()
    (lost,) = (await receipt_of(world, job)).attempts
    assert (lost.fault, lost.reason) == (Fault.PROVIDER, "lease_expired")


async def test_the_consumers_own_failure_is_retried_where_the_job_asks_for_it(world: World) -> None:
    job = await world.job(retry_own_failures=True)
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.finished(attempt, Exit.EXITED, exit_code=1)
    await world.control.step()
    (again,) = await world.node.desired()
    assert again.fence == 2
    assert (await look(world.resources, job)).state is JobState.ASSIGNED


async def test_a_sandbox_that_fails_is_the_providers_fault_and_tried_elsewhere(world: World) -> None:
    other = await voice(world.resources, price=3601)
    job = await world.job(price_max=4000)
    (attempt,) = await world.node.desired()
    await world.node.accept(attempt)
    await world.node.finished(attempt, Exit.SANDBOX_FAILED, detail="no user namespaces", agent_ms=0)
    await world.control.step()
    (again,) = await other.desired()
    assert again.fence == 2
    receipt = await receipt_of(world, job)
    assert (receipt.attempts[0].fault, receipt.attempts[0].charge) == (Fault.PROVIDER, 0)


async def test_a_job_that_kills_itself_pays_for_what_it_used(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 50)
    await world.node.finished(attempt, Exit.SIGNALLED, signal=9, agent_ms=50_000)
    await age(world.owner, 6)
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.FAILED, Fault.CONSUMER)]
    receipt = await receipt_of(world, job)
    assert receipt.charged == receipt.attempts[0].charge
    assert receipt.charged > 0


async def test_a_kill_waits_for_the_news_of_the_nodes_death(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.finished(attempt, Exit.SIGNALLED, signal=9)
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)]
    await world.node.disconnect()
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.LOST, Fault.PROVIDER)]


async def test_a06_a_job_that_nothing_matches_says_why_and_what_would_help(world: World) -> None:
    job = await world.job(needs={"gpu_models": ["H100"]}, price_max=4000)
    waits = await look(world.resources, job)
    assert waits.state is JobState.PENDING
    assert waits.unplaceable is not None
    assert waits.unplaceable["relaxation"] == {"gpu_models": ["RTX_4090"]}
    assert "RTX_4090" in waits.unplaceable["message"]


async def test_a_job_that_nothing_matched_in_time_fails_and_is_refunded(world: World) -> None:
    before = await posted(world.owner, world.user)
    job = await world.job(needs={"gpu_models": ["H100"]}, price_max=4000, wait_s=60)
    assert await posted(world.owner, world.user) < before
    await age(world.owner, 61)
    await world.control.step()
    ended = await look(world.resources, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "no_match")
    assert await posted(world.owner, world.user) == before


async def test_a_waiting_job_is_cancelled_and_refunded_at_once(world: World) -> None:
    before = await posted(world.owner, world.user)
    job = await world.job(needs={"gpu_models": ["H100"]}, price_max=4000)
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
        await s.jobs.cancel(world.user, job.id)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.CANCELLED
    assert await posted(world.owner, world.user) == before
    async with scope(world.resources) as s:
        assert (await s.jobs.cancel(world.user, job.id)).state is JobState.CANCELLED


async def test_an_assigned_job_that_was_not_accepted_is_cancelled_at_once(world: World) -> None:
    job = await world.job()
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.CANCELLED


async def test_an_ended_job_cannot_be_cancelled(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.finished(attempt)
    await world.control.step()
    async with scope(world.resources) as s:
        with pytest.raises(Conflict) as refused:
            await s.jobs.cancel(world.user, job.id)
    assert refused.value.next_step == f"see its receipt: qubix show {job.id}"


async def test_p_b40_the_end_of_a_job_is_told_exactly_once(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.finished(attempt)
    for _ in range(3):
        await world.control.step()
        await world.node.finished(attempt)
    await world.control.publish()
    async with scope(world.resources) as s:
        events = await outbox.read(s.connection, [f"job:{job.id}"], after=0)
    assert [e.type for e in events].count("JOB_COMPLETED") == 1
    assert [e.payload["state"] for e in events if e.type == "JOB_STATUS_CHANGED"] == ["PENDING", "ASSIGNED", "RUNNING", "COMPLETED"]


async def test_p_a07_progress_never_falls_over_all_attempts_and_ends_at_100(world: World) -> None:
    other = await voice(world.resources)
    job = await world.job()
    seen = [(await look(world.resources, job)).progress]
    nodes = [world.node, other]
    for round_ in range(2):
        ((node, attempt),) = [(node, attempt) for node in nodes for attempt in await node.desired()]
        await node.start(attempt)
        for pct in (10, 5, 60, 100) if round_ == 0 else (20, 70, 100):
            await node.progress(attempt, pct)
            seen.append((await look(world.resources, job)).progress)
        if round_ == 0:
            await age(world.owner, 21)
        else:
            await node.finished(attempt)
        await world.control.step()
        seen.append((await look(world.resources, job)).progress)
    assert seen == sorted(seen)
    assert (seen[0], seen[-2], seen[-1]) == (0.0, 99.9, 100.0)


async def test_without_enough_money_nothing_is_made_and_the_missing_amount_is_told(world: World) -> None:
    poor = await consumer(world.resources, world.owner, money=100)
    with pytest.raises(Unpaid) as refused:
        await submit(world.resources, poor)
    assert refused.value.extra["missing"] == 500
    assert [await world.owner.scalar(sa.text(f"SELECT count(*) FROM {t}")) for t in ("jobs", "escrows", "quotes")] == [0, 0, 0]
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 0


async def test_a_bad_request_names_the_field_and_what_is_allowed(world: World) -> None:
    for members, field in (
        ({"kind": "nonsense"}, "kind"),
        ({"params": {"epochs": 0}}, "params.epochs"),
        ({"params": {"epoch": 1}}, "params.epoch"),
        ({"kind": "script"}, "inputs"),
        ({"duration_max_s": 0}, "duration_max_s"),
        ({"budget": -5}, "budget"),
    ):
        with pytest.raises(Invalid) as refused:
            await submit(world.resources, world.user, **members)
        assert refused.value.extra["field"] == field
        assert refused.value.next_step


async def test_anothers_job_looks_like_none(world: World) -> None:
    job = await world.job()
    stranger = await person(world.resources)
    async with scope(world.resources) as s:
        for ask in (s.jobs.get, s.jobs.cancel, s.jobs.logs, s.jobs.timeline, s.jobs.artefacts, s.jobs.receipt, s.jobs.attempts):
            with pytest.raises(NotFound):
                await ask(stranger, job.id)


async def test_p_b16_no_attempt_without_a_locked_escrow(world: World) -> None:
    job = await submit(world.resources, world.user)
    async with scope(world.resources) as s:
        await s.escrow.dispute(job.id, world.user, "changed my mind")
    await world.control.step()
    assert await world.attempts(job) == []
    with pytest.raises(Exception, match="has no locked escrow"):
        await world.owner.execute(
            sa.text("""INSERT INTO attempts (id, job_id, number, fence, node_id, provider_id, offer_id, rate, limit_ms, device_uuids)
                       SELECT gen_random_uuid(), j.id, 1, j.fence, o.node_id, o.provider_id, o.id, 1, 1000, '{}' FROM jobs j, offers o""")
        )


async def test_earnings_mature_after_the_window_through_the_money_loop(world: World, database: Database) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 30)
    await world.node.finished(attempt)
    held = database.resources("qubix_controller", dispute_window_s=0)
    control = await controller(held)
    await control.step()
    assert await posted(world.owner, world.node.owner_id) == 0
    await control.money()
    receipt = await receipt_of(world, job)
    assert await posted(world.owner, world.node.owner_id) == receipt.charged > 0
    assert await problems(world.owner) == []
    await held.close()


async def test_the_market_loop_frees_what_ran_out(world: World, resources: Resources) -> None:
    async with scope(resources) as s:
        await s.market.quote(world.user, Needs(), duration_max_s=60)
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 1
    await world.owner.execute(
        sa.text("UPDATE device_leases SET during = tstzrange(lower(during) - interval '1 hour', upper(during) - interval '1 hour')")
    )
    await world.owner.execute(sa.text("UPDATE quotes SET expires_at = expires_at - interval '1 hour'"))
    await world.control.market()
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM device_leases")) == 0
    assert await world.owner.scalar(sa.text("SELECT state FROM quotes")) == "expired"


async def test_a_silent_node_goes_offline_after_ninety_seconds(world: World) -> None:
    await age(world.owner, 91, nodes=True)
    await world.control.market()
    assert await world.owner.scalar(sa.text("SELECT state FROM nodes")) == "offline"
    await world.node.status()
    assert await world.owner.scalar(sa.text("SELECT state FROM nodes")) == "online"


async def test_the_controllers_housekeeping_runs(world: World) -> None:
    await world.control.keep_house()
