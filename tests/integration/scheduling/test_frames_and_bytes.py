"""Points 6 and 7 of "attempts, leases, fencing" (architecture, 4b): durable frames, logs, and bytes before their rows."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from qubix.agent.protocol import Accept, Ack, Grant, Log, Missing, Status, Stream
from qubix.bootstrap import recording, scope
from qubix.controller import FOLDERS_AT_ONCE
from qubix.jobs.blobs import FOLDERS, Blob
from qubix.jobs.model import JobState
from qubix.kernel.errors import TooLarge, Unauthenticated, Unavailable
from qubix.scheduling.sessions import SessionOver, SessionsService
from tests.fakes.voices import look, somebody_waits, stream
from tests.integration.scheduling.conftest import World


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


async def test_frames_that_come_with_a_heartbeat_lock_the_node_before_its_jobs(world: World) -> None:
    job = await world.job()
    (attempt,) = await world.node.desired()
    session = world.node._session
    accept = Accept(session=session, attempt=attempt.id, fence=attempt.fence)
    beat = Status(session=session, seq=world.node.seq + 1, generation=0, alive=(), sample=None)
    async with scope(world.resources) as s:  # as the controller, which locks the node, then the job
        await s.connection.execute(sa.text("SELECT FROM nodes WHERE id = :id FOR NO KEY UPDATE"), {"id": world.node.node_id})
        taken = asyncio.create_task(world.node.say(accept, beat))
        await somebody_waits(world.owner)
        await s.connection.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE NOWAIT"), {"id": job.id})
    assert any(isinstance(answer, Grant) for answer in await taken)


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


async def test_4b_07_two_who_refer_to_the_same_bytes_do_not_wait_for_each_other_and_nobody_collects_them_meanwhile(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    blob = Blob(*await world.node.put(attempt, b"the same script"))
    async with scope(world.resources) as first, scope(world.resources) as second, scope(world.control._resources) as collector:
        await second.connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        await first.blob_rows.keep_blob(blob)
        await second.blob_rows.keep_blob(blob)
        assert await collector.blob_rows.lock_stale_blobs(keep_s=-1, most=10) == []
    async with scope(world.control._resources) as collector:
        assert await collector.blob_rows.lock_stale_blobs(keep_s=-1, most=10) == [blob.sha256]


async def test_4b_07_bytes_that_are_referred_to_again_have_their_day_anew(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    blob = Blob(*await world.node.put(attempt, b"old"))
    await world.owner.execute(sa.text("UPDATE blobs SET unreferenced_since = unreferenced_since - interval '2 hours'"))
    async with scope(world.resources) as s:
        await s.blob_rows.keep_blob(blob)
    assert await world.owner.scalar(sa.text("SELECT clock_timestamp() - unreferenced_since < interval '1 hour' FROM blobs")) is True


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


def _backdate(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))
