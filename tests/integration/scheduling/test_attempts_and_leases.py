"""The twelve points of "attempts, leases, fencing" (architecture, 4b), each with a test on the real database; 6 and 7 stand in test_frames_and_bytes."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from qubix.agent.protocol import Ack, Desired, Exit, Grant, Running, Stop
from qubix.bootstrap import scope
from qubix.controller import Controller
from qubix.jobs.model import AttemptState, Fault, JobState
from qubix.kernel.errors import Unauthenticated
from qubix.kernel.ids import new_id
from qubix.postgres.engine import Listener
from qubix.postgres.leader import NotLeader
from qubix.scheduling.frames import StaleAttempt
from qubix.scheduling.sessions import HelloRefused, SessionOver
from tests.fakes.voices import age, look, problems, submit, voice
from tests.integration.scheduling.conftest import World


async def test_4b_01_a_second_live_attempt_of_a_job_is_refused_by_the_database(world: World) -> None:
    job = await world.job()
    await world.owner.execute(sa.text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})
    with pytest.raises(DBAPIError, match="attempts_one_live_key"):
        await world.owner.execute(
            sa.text("""INSERT INTO attempts (id, job_id, number, fence, node_id, provider_id, offer_id, rate, limit_ms, device_uuids)
                       SELECT :new, job_id, 2, 2, node_id, provider_id, offer_id, rate, limit_ms, device_uuids FROM attempts"""),
            {"new": new_id()},
        )


async def test_4b_01_the_fence_grows_with_every_attempt(world: World) -> None:
    job = await world.job()
    for fence in (1, 2):
        (attempt,) = await world.node.desired()
        assert attempt.fence == fence == (await look(world.resources, job)).fence
        await world.node.decline(attempt)
        await world.control.step()
        await world.owner.execute(sa.text("UPDATE attempts SET ended_at = ended_at - interval '1 hour' WHERE ended_at IS NOT NULL"))
        await world.control.step()


async def test_4b_02_devices_are_bound_by_uuid_and_leased_for_the_run(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    assert attempt.devices == world.node.device_uuids
    row = (await world.owner.execute(sa.text("SELECT purpose, holder_id, upper(during) - lower(during) AS span FROM device_leases"))).one()
    assert (row.purpose, row.holder_id) == ("job", attempt.id)
    assert row.span.total_seconds() >= attempt.limit_ms / 1000


async def test_4b_03_the_desired_document_is_sent_on_hello_on_change_and_as_the_heartbeats_answer(world: World) -> None:
    before = await world.node.desired()
    heard = await _woken(world, "nodes")
    await world.job()
    await world.control._resources.wakes.flush()
    assert before == ()
    assert str(world.node.node_id) in await heard.__anext__()
    await heard.close()
    (attempt,) = await world.node.desired()
    (answer,) = await world.node.status(attempt)
    assert isinstance(answer, Desired)
    assert [listed.id for listed in answer.attempts] == [attempt.id]
    again = await world.node.hello()
    assert [listed.id for listed in again.attempts] == [attempt.id]


async def test_4b_03_a_change_raises_the_generation(world: World) -> None:
    async with scope(world.resources) as s:
        before = await s.sessions.desired(world.node.node_id)
    await world.job()
    async with scope(world.resources) as s:
        after = await s.sessions.desired(world.node.node_id)
    assert before is not None
    assert after is not None
    assert after.generation > before.generation


async def test_4b_04_the_last_hello_wins_and_the_older_session_is_told_so(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    older = dataclasses.replace(world.node)
    await world.node.hello()
    for speak in (older.accept(attempt), older.status(attempt), older.log(attempt, "x")):
        with pytest.raises(SessionOver):
            await speak
    async with scope(world.resources) as s:
        with pytest.raises(Unauthenticated):
            await s.frames.put_limit(older.token, attempt.id, attempt.fence)
    assert isinstance((await world.node.accept(attempt))[0], Grant)


async def test_4b_04_a_status_counts_only_if_its_seq_grows(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 15)
    world.node.seq -= 1
    assert await world.node.status(attempt) == []
    renewed = await world.owner.scalar(sa.text("SELECT clock_timestamp() - renewed_at > interval '14 seconds' FROM attempts"))
    assert renewed is True
    await world.node.status(attempt)
    assert await world.owner.scalar(sa.text("SELECT clock_timestamp() - renewed_at < interval '5 seconds' FROM attempts")) is True


async def test_4b_04_a_hello_with_another_key_is_refused(world: World) -> None:
    other = await voice(world.resources, hello=False)
    liar = dataclasses.replace(world.node, key=other.key)
    with pytest.raises(HelloRefused):
        await liar.hello()


async def test_4b_05_an_attempt_starts_only_after_a_grant_and_a_repeated_accept_is_granted_again(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    assert isinstance((await world.node.running(attempt))[0], Stop)
    assert isinstance((await world.node.accept(attempt))[0], Grant)
    assert isinstance((await world.node.accept(attempt))[0], Grant)
    assert isinstance((await world.node.running(attempt))[0], Ack)
    assert isinstance((await world.node.accept(attempt))[0], Stop)
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)]


async def test_4b_05_a_declined_attempt_is_not_counted_as_a_try(world: World) -> None:
    second = await voice(world.resources, price=3000)
    job = await world.job(price_max=3600)
    assert await world.node.desired() == ()
    (attempt,) = await second.desired()
    assert isinstance((await second.decline(attempt))[0], Stop)
    await world.control.step()
    (again,) = await world.node.desired()
    assert again.fence == 2
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM attempts WHERE counted")) == 1
    assert (await look(world.resources, job)).state is JobState.ASSIGNED


async def test_4b_05_after_five_declines_the_job_fails_and_is_refunded(world: World) -> None:
    job = await world.job()
    for _ in range(5):
        (attempt,) = await world.node.desired()
        await world.node.decline(attempt, "no sandbox here")
        await world.control.step()
        await world.owner.execute(sa.text("UPDATE attempts SET ended_at = ended_at - interval '1 hour' WHERE ended_at IS NOT NULL"))
        await world.control.step()
    ended = await look(world.resources, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "declined")
    assert "no sandbox here" in (ended.reason_detail or "")
    async with scope(world.resources) as s:
        receipt = await s.jobs.receipt(world.user, job.id)
    assert (receipt.charged, receipt.refunded, receipt.escrow_state) == (0, 600, "REFUNDED")


async def test_4b_05_an_attempt_that_is_not_accepted_in_ten_seconds_is_taken_back(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await age(world.owner, 11)
    await world.control.sweep()
    assert isinstance((await world.node.accept(attempt))[0], Stop)
    assert await world.attempts(job) == [(AttemptState.LOST, Fault.PROVIDER)]
    assert (await look(world.resources, job)).state is JobState.PENDING


async def test_4b_08_a_stale_attempt_is_refused_with_stop_whatever_it_says(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 21)
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.LOST, Fault.PROVIDER)]
    for speak in (
        world.node.accept(attempt),
        world.node.running(attempt),
        world.node.progress(attempt, 99),
        world.node.log(attempt, "x"),
        world.node.finished(attempt),
    ):
        (answer,) = await speak
        assert isinstance(answer, Stop)
    with pytest.raises(StaleAttempt):
        await world.node.put(attempt, b"late")
    stops = [answer for answer in await world.node.status(attempt) if isinstance(answer, Stop)]
    assert [stop.attempt for stop in stops] == [attempt.id]
    wrong = attempt.model_copy(update={"fence": attempt.fence + 1})
    assert isinstance((await world.node.running(wrong))[0], Stop)


async def test_4b_09_an_attempt_lives_while_it_is_renewed_and_is_lost_after_twenty_seconds_of_silence(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 19)
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)]
    await world.node.status(attempt)
    await age(world.owner, 19)
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)]
    await age(world.owner, 2)
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.LOST, Fault.PROVIDER)]
    assert (await look(world.resources, job)).state is JobState.PENDING


async def test_4b_09_a_late_finished_is_good_until_the_loss_commits(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 60)
    assert isinstance((await world.node.finished(attempt))[0], Ack)
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.SUCCEEDED, Fault.NONE)]


async def test_4b_09_a_dead_node_with_a_closed_socket_loses_its_attempts_at_once(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.owner.execute(sa.text("UPDATE nodes SET dead_at = clock_timestamp()"))
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)], "its socket is open"
    await world.node.disconnect()
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.LOST, Fault.PROVIDER)]


async def test_4b_09_a_pause_of_the_sweeper_is_added_to_every_lease(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 100)
    await world.owner.execute(sa.text("UPDATE sweeper_beats SET at = at - interval '100 seconds'"))
    await world.control.sweep()
    assert await world.attempts(job) == [(AttemptState.RUNNING, None)]


async def test_4b_10_a_device_is_quarantined_until_a_newer_status_omits_the_attempt(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    async with scope(world.resources) as s:
        seen = await s.sessions.desired(world.node.node_id)
    assert seen is not None
    await world.node.start(attempt)
    await age(world.owner, 21)
    await world.control.sweep()
    assert await world.quarantined() == 1
    await world.node.status(generation=seen.generation)
    assert await world.quarantined() == 1, "an older generation says nothing"
    await world.node.status(attempt)
    assert await world.quarantined() == 1, "its processes are still there"
    await world.control.place()
    assert await world.node.desired() == ()
    await world.node.status()
    assert await world.quarantined() == 0


async def test_4b_11_a_cancelled_attempt_is_no_longer_desired_and_ends_when_the_node_says_so(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 30)
    await world.node.status(attempt)
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
    assert await world.node.desired() == ()
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.RUNNING
    await world.node.finished(attempt, Exit.STOPPED, signal=9)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.CANCELLED
    async with scope(world.resources) as s:
        receipt = await s.jobs.receipt(world.user, job.id)
    assert 30 <= receipt.charged <= 32
    assert receipt.escrow_state == "SPLIT"


async def test_4b_11_a_success_that_comes_first_wins_over_the_cancellation(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
    await world.node.finished(attempt)
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.COMPLETED


async def test_4b_11_a_cancellation_that_no_node_confirms_ends_after_ten_seconds_in_quarantine(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, job.id)
    await age(world.owner, 11)
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.CANCELLED, Fault.NONE)]
    assert await world.quarantined() == 1


async def test_4b_11_an_exit_by_signal_is_never_success(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.finished(attempt, Exit.SIGNALLED, exit_code=0, signal=11)
    await world.control.step()
    assert await world.attempts(job) == [(AttemptState.FAILED, Fault.CONSUMER)]
    assert (await look(world.resources, job)).reason == "signal"


async def test_4b_12_an_older_controller_can_write_nothing(world: World) -> None:
    job = await submit(world.resources, world.user)
    older = Controller(world.control._resources, holder="older")
    older._epoch = world.control._epoch
    await world.control.lead()
    for step in (older.place, older.conclude, older.sweep, older.money, older.market):
        with pytest.raises(NotLeader):
            await step()
    assert (await look(world.resources, job)).state is JobState.PENDING
    assert await problems(world.owner) == []


async def test_4b_08_a_running_frame_of_another_node_is_stopped(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    other = await voice(world.resources)
    assert other.session is not None
    (answer,) = await other.say(Running(session=other.session, attempt=attempt.id, fence=attempt.fence))
    assert isinstance(answer, Stop)


async def _woken(world: World, channel: str) -> Listener:
    listener = world.resources.listen(channel, idle_s=5)
    await listener._ensure()
    return listener
