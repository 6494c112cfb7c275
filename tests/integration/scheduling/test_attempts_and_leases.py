"""The twelve points of "attempts, leases, fencing" (architecture, 4b), each with a test on the real database."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Ack, Desired, Exit, Grant, Log, Missing, Running, Stop, Stream
from qubix.bootstrap import Resources, recording, scope
from qubix.controller import FOLDERS_AT_ONCE, Controller
from qubix.jobs.blobs import FOLDERS, Blob
from qubix.jobs.model import AttemptState, Fault, Job, JobState
from qubix.kernel.errors import TooLarge, Unauthenticated, Unavailable
from qubix.kernel.ids import UserId, new_id
from qubix.postgres.engine import Listener
from qubix.postgres.leader import NotLeader
from qubix.scheduling.frames import StaleAttempt
from qubix.scheduling.sessions import HelloRefused, SessionOver, SessionsService
from tests.fakes.voices import Voice, age, consumer, controller, look, problems, stream, submit, voice


@dataclasses.dataclass
class World:
    resources: Resources
    owner: AsyncConnection
    user: UserId
    node: Voice
    control: Controller

    async def job(self, **members: object) -> Job:
        job = await submit(self.resources, self.user, **members)
        await self.control.step()
        return job

    async def attempts(self, job: Job) -> list[tuple[AttemptState, Fault | None]]:
        async with scope(self.resources) as s:
            return [(attempt.state, attempt.fault) for attempt in await s.jobs.attempts(job.owner_id, job.id)]

    async def quarantined(self) -> int:
        return int(await self.owner.scalar(sa.text("SELECT count(*) FROM device_quarantines")) or 0)


@pytest.fixture
async def world(resources: Resources, controller_resources: Resources, owner: AsyncConnection) -> World:
    user = await consumer(resources, owner)
    return World(resources, owner, user, await voice(resources), await controller(controller_resources))


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


async def test_4b_06_durable_frames_may_be_repeated(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    await world.node.accept(attempt)
    for _ in range(2):
        assert isinstance((await world.node.running(attempt))[0], Ack)
        assert isinstance((await world.node.log(attempt, "line\n"))[0], Ack)
        assert isinstance((await world.node.checkpoint(attempt, 1, ran_ms=10))[0], Ack)
        assert isinstance((await world.node.artefact(attempt, "a.txt", b"a"))[0], Ack)
    for _ in range(2):
        assert isinstance((await world.node.finished(attempt, log_ends={"out": 5}, checkpoints=(1,), artefacts=("a.txt",)))[0], Ack)
    counts = [await world.owner.scalar(sa.text(f"SELECT count(*) FROM {table}")) for table in ("log_chunks", "checkpoints", "artefacts")]
    assert counts == [1, 1, 1]
    await world.control.step()
    assert (await look(world.resources, job)).state is JobState.COMPLETED


async def test_4b_07_finished_is_answered_with_what_is_missing_until_all_is_there(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.log(attempt, "first")
    await world.node.log(attempt, "third", offset=10)
    members: dict[str, Any] = {"log_ends": {"out": 15}, "checkpoints": (1,), "artefacts": ("m",)}
    (answer,) = await world.node.finished(attempt, **members)
    assert isinstance(answer, Missing)
    assert set(answer.keys) == {f"{attempt.id}/log/out/5", f"{attempt.id}/checkpoint/1", f"{attempt.id}/artefact/m"}
    await world.node.log(attempt, "secon", offset=5)
    await world.node.checkpoint(attempt, 1, ran_ms=1)
    await world.node.artefact(attempt, "m", b"m")
    assert isinstance((await world.node.finished(attempt, **members))[0], Ack)


async def test_4b_06_pieces_of_a_log_that_overlap_are_stored_once(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    for offset, text in ((0, "hello"), (10, "world"), (0, "hello"), (3, "loud"), (8, "xyz"), (12, "r"), (5, "12345"), (5, "")):
        (answer,) = await world.node.log(attempt, text, offset=offset)
        assert isinstance(answer, Ack), "a hostile agent learns nothing, an honest one never does it"
    rows = await world.owner.execute(sa.text('SELECT "offset", text FROM log_chunks ORDER BY "offset"'))
    assert [tuple(row) for row in rows] == [(0, "hello"), (5, "12345"), (10, "world")]


async def test_4b_06_no_agent_stores_more_log_than_the_attempts_limit(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    most = attempt.spec.limits.log_bytes_max
    await world.owner.execute(sa.text("UPDATE jobs SET limits = jsonb_set(limits, '{log_bytes_max}', '100')"))
    assert most > 100
    session = world.node._session
    spoken = {"session": session, "attempt": attempt.id, "fence": attempt.fence, "node_at": 1.0}
    for offset in range(0, 120, 3):
        for name in Stream:
            await world.node.say(Log(**spoken, stream=name, offset=offset, text="ééé"))
    kept: dict[str, int] = dict(
        (await world.owner.execute(sa.text("SELECT stream, sum(octet_length(text))::int FROM log_chunks GROUP BY 1"))).all()
    )
    assert kept["out"] + kept["err"] <= 100
    assert kept["out"] + kept["err"] >= 80, "the limit is used"


async def test_4b_04_bytes_that_meet_a_new_session_are_not_answered_as_if_their_attempt_were_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    known = SessionsService.authenticate

    async def slow(service: SessionsService, token: str) -> tuple[UUID, UUID]:
        found = await known(service, token)
        await world.node.hello()
        return found

    monkeypatch.setattr(SessionsService, "authenticate", slow)
    async with scope(world.resources) as s:
        with pytest.raises(SessionOver):
            await s.frames.put_limit(world.node.token, attempt.id, attempt.fence)


async def test_4b_06_two_sessions_at_once_cannot_store_overlapping_pieces(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    pieces = [(number, "x" * 50) for number in range(10)]
    await asyncio.gather(*(world.node.log(attempt, text, offset=offset) for offset, text in pieces))
    assert await world.owner.scalar(sa.text("SELECT sum(octet_length(text)) FROM log_chunks")) == 50


async def test_4b_07_a_row_before_its_bytes_is_refused(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    (answer,) = await world.node.checkpoint(attempt, 1, ran_ms=1, store=False)
    assert isinstance(answer, Missing)
    assert answer.keys == (f"{attempt.id}/checkpoint/1",)


async def test_4b_07_bytes_that_nothing_refers_to_are_collected_after_a_day(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.node.checkpoint(attempt, 1, ran_ms=1)
    kept = await world.owner.scalar(sa.text("SELECT sha256 FROM checkpoints"))
    loose, _ = await world.node.put(attempt, b"nobody's")
    blobs = world.control._resources.blobs
    await world.owner.execute(sa.text("UPDATE blobs SET unreferenced_since = unreferenced_since - interval '25 hours'"))
    assert await world.control.collect_blobs() == 0, "the file is fresh: somebody may be putting it again"
    _backdate(blobs.path(loose), blobs.path(kept))
    assert await world.control.collect_blobs() == 1
    assert (blobs.has(kept), blobs.has(loose)) == (True, False)


async def test_4b_07_bytes_that_no_row_knows_are_adopted_and_then_collected(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    known, _ = await world.node.put(attempt, b"known")
    blobs = world.control._resources.blobs
    lost = await blobs.put(stream(b"its process died before the row"), size_max_bytes=100)
    young = await blobs.put(stream(b"its row is on its way"), size_max_bytes=100)
    _backdate(blobs.path(known), blobs.path(lost.sha256))
    adopted = sum([await world.control.adopt_blobs() for _ in range(FOLDERS // FOLDERS_AT_ONCE)])
    assert adopted == 1
    assert await world.control.collect_blobs() == 0, "it has its day, like all others"
    await world.owner.execute(
        sa.text("UPDATE blobs SET unreferenced_since = unreferenced_since - interval '25 hours' WHERE sha256 = :sha256"),
        {"sha256": lost.sha256},
    )
    assert await world.control.collect_blobs() == 1
    assert [blobs.has(sha256) for sha256 in (known, lost.sha256, young.sha256)] == [True, False, True]


async def test_4b_07_bytes_put_again_while_they_are_collected_are_sent_once_more_and_never_lost(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    sha256, _ = await world.node.put(attempt, b"again")
    await world.owner.execute(sa.text("UPDATE blobs SET unreferenced_since = unreferenced_since - interval '25 hours'"))
    async with scope(world.control._resources) as s:
        assert await s.blob_rows.lock_stale_blobs(keep_s=86_400, most=10) == [sha256]
        putting = asyncio.create_task(world.node.put(attempt, b"again"))
        while not await world.owner.scalar(sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")):
            assert not putting.done(), "it must wait for the row"
            await asyncio.sleep(0.01)
        world.control._resources.blobs.remove(sha256)
        await s.blob_rows.forget_blobs([sha256])
    with pytest.raises(Unavailable, match="removed while"):
        await putting
    assert await world.node.put(attempt, b"again") == (sha256, 5)
    assert world.control._resources.blobs.has(sha256)


async def test_4b_07_bytes_that_could_not_be_recorded_are_removed_at_once_unless_a_row_knows_them(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    blobs = world.resources.blobs
    known, size = await world.node.put(attempt, b"known")
    loose = await blobs.put(stream(b"loose"), size_max_bytes=100)
    for blob in (Blob(known, size), loose):
        with pytest.raises(Unauthenticated):
            async with recording(world.resources, blob), scope(world.resources) as s:
                await s.frames.stored("an old session's token", attempt.id, attempt.fence, blob)
    assert (blobs.has(known), blobs.has(loose.sha256)) == (True, False)
    assert await world.owner.scalar(sa.text("SELECT count(*) FROM blobs")) == 1


async def test_4b_07_puts_at_once_are_recorded_only_up_to_the_attempts_disk(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await world.owner.execute(sa.text("UPDATE jobs SET limits = jsonb_set(limits, '{disk_bytes}', '100')"))
    pieces = [bytes([number]) * 60 for number in range(3)]
    kept = [await world.resources.blobs.put(stream(piece), size_max_bytes=100) for piece in pieces]

    async def note(blob: Blob) -> None:
        async with scope(world.resources) as s:
            await s.frames.stored(world.node.token, attempt.id, attempt.fence, blob)

    ends = await asyncio.gather(*map(note, kept), return_exceptions=True)
    assert [type(end) for end in ends].count(TooLarge) == 2
    assert await world.owner.scalar(sa.text("SELECT sum(b.size) FROM attempt_blobs JOIN blobs b USING (sha256)")) == 60
    taken = next(blob for blob, end in zip(kept, ends, strict=True) if end is None)
    await note(taken)
    async with scope(world.resources) as s:
        assert await s.frames.put_limit(world.node.token, attempt.id, attempt.fence, sha256=taken.sha256) == 100, "a repeat is harmless"


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


def _backdate(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
