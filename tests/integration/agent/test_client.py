"""A whole agent against a platform on a real loopback socket; attempts are played by a runner in memory."""

from __future__ import annotations

import asyncio
import time

import pytest

from qubix.agent import attempts
from qubix.agent.client import ClientSettings
from qubix.agent.home import lock_devices
from qubix.agent.protocol import (
    Ack,
    Artefact,
    Checkpoint,
    Decline,
    Durable,
    Exit,
    Finished,
    InputFile,
    Log,
    Metrics,
    Missing,
    Progress,
    Restore,
    Running,
    Status,
    Stop,
)
from qubix.agent.spool import Spool
from tests.fakes.platform import desired_attempt
from tests.integration.agent.conftest import GPU, World


async def test_a_job_runs_and_everything_it_made_arrives_bytes_first(world: World) -> None:
    await world.online()
    one = desired_attempt("train", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Finished))
    frames = world.platform
    (end,) = frames.of(Finished)
    assert (end.exit, end.exit_code, end.log_ends, end.checkpoints, end.artefacts) == (Exit.EXITED, 0, {"out": 8}, (1,), ("model.pt",))
    assert "".join(f.text for f in frames.of(Log)) == "go\ndone\n"
    assert world.transfer.blobs[frames.of(Checkpoint)[0].sha256] == b"weights"
    assert world.transfer.blobs[frames.of(Artefact)[0].sha256] == b"model"
    assert [p.pct for p in frames.of(Progress)] == [50.0]
    assert isinstance(next(f for f in frames.frames if isinstance(f, Durable)), Running)
    assert {f.session for f in frames.frames if isinstance(f, Durable)} == {frames.session}


async def test_the_spool_is_empty_once_all_is_acknowledged(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    await world.platform.want()
    await world.platform.until(lambda: world.platform.of(Status)[-1].alive == () and world.platform.of(Status)[-1].generation == 2)
    assert list(world.home.spool.iterdir()) == []
    assert list(world.home.work.iterdir()) == []


async def test_no_grant_no_start(world: World) -> None:
    world.platform.grants = False
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await asyncio.sleep(0.3)
    assert world.runner.started == []


async def test_a_node_without_a_sandbox_declines_and_says_why(world: World) -> None:
    world.containment.answer = {"ok": "no", "reason": "user namespaces are refused"}
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: world.platform.of(Decline))
    assert world.platform.of(Decline)[0].reason == "no_sandbox: user namespaces are refused"
    assert world.platform.hellos[0].facts.sandbox["ok"] == "no"


async def test_a_device_that_an_earlier_attempt_still_holds_is_declined(world: World) -> None:
    (lock,) = lock_devices([(GPU, world.home.lock_path(GPU))])
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: world.platform.of(Decline))
    assert world.platform.of(Decline)[0].reason.startswith("device_held")
    lock.close()


async def test_a_device_that_the_node_does_not_have_is_declined(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("hello", "GPU-of-somebody-else"))
    await world.platform.until(lambda: world.platform.of(Decline))
    assert world.platform.of(Decline)[0].reason.startswith("unknown_device")


async def test_an_attempt_that_is_desired_no_more_is_stopped_and_reported(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: world.platform.of(Running))
    await world.platform.want()
    await world.platform.until(lambda: world.platform.of(Finished))
    assert [f.exit for f in world.platform.of(Finished)] == [Exit.STOPPED]
    await world.idle()


async def test_after_a_stop_nothing_more_is_sent_of_the_attempt(world: World) -> None:
    await world.online()
    one = desired_attempt("sleep", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Running))
    world.platform.attempts = []
    await world.platform.tell(Stop(attempt=one.id, fence=1, reason="stale"))
    await world.idle()
    assert world.platform.of(Finished) == []
    assert list(world.home.spool.iterdir()) == []


async def test_a_dropped_connection_comes_back_within_5_s_and_the_attempt_runs_on(world: World) -> None:
    await world.online()
    one = desired_attempt("sleep", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Running))
    await world.platform.drop()
    began = time.monotonic()
    await world.platform.until(lambda: len(world.platform.hellos) == 2)
    assert time.monotonic() - began < 5
    assert world.platform.hellos[1].alive == (one.id,)
    assert world.runner.started == [one.id]


async def test_what_was_not_acknowledged_is_sent_again_in_the_next_session(world: World) -> None:
    world.platform.acks = False
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: len(world.platform.of(Log)) >= 1)
    first = world.platform.session
    world.platform.acks = True
    await world.platform.drop()
    await world.platform.until(lambda: world.platform.of(Finished))
    again = [f for f in world.platform.of(Log) if f.session != first]
    assert "".join(f.text for f in again) == "go\ndone\n"


async def test_an_unacknowledged_frame_is_repeated_in_the_same_session(world: World) -> None:
    dropped: list[str] = []

    def lose_the_first_running(frame: object) -> list[Ack] | None:
        if isinstance(frame, Running) and not dropped:
            dropped.append(frame.key)
            return []
        return None

    world.platform.answer = lose_the_first_running  # type: ignore[assignment]
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert len(world.platform.of(Running)) == 2


async def test_missing_frames_are_sent_and_then_finished_again(world: World) -> None:
    refused: list[str] = []

    def miss_a_log(frame: object) -> list[Missing] | None:
        if isinstance(frame, Finished) and not refused:
            refused.append(frame.key)
            return [Missing(attempt=frame.attempt, keys=(f"{frame.attempt}/log/out/0",))]
        return None

    world.platform.answer = miss_a_log  # type: ignore[assignment]
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: len(world.platform.of(Finished)) == 2)
    assert [f.offset for f in world.platform.of(Log)].count(0) == 2


async def test_after_a_crash_the_spool_is_delivered_and_the_attempt_never_restarted(world: World) -> None:
    world.platform.acks = False
    await world.online()
    one = desired_attempt("sleep", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Running))
    await world.stop()
    world.platform.acks = True
    world.platform.frames.clear()
    world.start()
    await world.platform.until(lambda: world.platform.of(Finished))
    (end,) = world.platform.of(Finished)
    assert (end.exit, end.log_ends) == (Exit.SANDBOX_FAILED, {"out": 3})
    assert world.runner.started == [one.id]
    assert world.containment.cleaned == 2


async def test_an_attempt_whose_results_are_still_being_sent_is_named_alive(world: World) -> None:
    world.transfer.failing = 10**6
    await world.online()
    one = desired_attempt("train", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Running))
    await world.platform.until(lambda: world.platform.of(Status)[-1].alive and not world.runner.busy())
    known = len(world.platform.of(Status))
    await world.platform.want(one)
    await world.platform.until(lambda: len(world.platform.of(Status)) > known)
    assert [a.id for a in world.platform.of(Status)[-1].alive] == [one.id]
    assert world.platform.of(Finished) == []
    world.transfer.failing = 0
    await world.platform.until(lambda: world.platform.of(Finished))
    await world.idle()


async def test_an_end_reported_while_offline_arrives_later(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: world.platform.of(Running))
    attempt = world.runner.started[0]
    await world.platform.close()
    await world.runner.stop(attempt)
    await asyncio.sleep(0.2)
    await world.platform.listen()
    await world.platform.until(lambda: world.platform.of(Finished))
    assert world.platform.of(Finished)[0].exit is Exit.STOPPED


async def test_an_agent_that_hears_nothing_for_long_kills_what_runs(world: World) -> None:
    world.settings = ClientSettings(fence_after_s=0.5, death_grace_s=0.05)
    await world.online()
    one = desired_attempt("sleep", GPU)
    await world.platform.want(one)
    await world.platform.until(lambda: world.platform.of(Running))
    await world.platform.close()
    await asyncio.sleep(1.0)
    world.platform.attempts = []
    await world.platform.listen()
    await world.platform.until(lambda: world.platform.of(Finished))
    assert world.platform.of(Finished)[0].detail.startswith(("stopped on request", "no contact"))


async def test_a_job_that_ended_in_time_is_not_over_its_limit_because_its_news_came_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_at = time.monotonic() + 0.8
    monkeypatch.setattr(attempts, "LIMIT_BACKSTOP_S", 0.05)
    monkeypatch.setattr(Spool, "has_room", lambda spool: time.monotonic() > room_at)
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU, limit_ms=100))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert time.monotonic() > room_at, "the news was held up past the limit"
    assert [(f.exit, f.exit_code) for f in world.platform.of(Finished)] == [(Exit.EXITED, 0)]


async def test_a_job_that_does_not_end_at_its_limit_is_ended_by_the_agent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LIMIT_BACKSTOP_S", 0.05)
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU, limit_ms=100))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert [f.exit for f in world.platform.of(Finished)] == [Exit.TIME_LIMIT]


async def test_a_runner_that_dies_is_reported_after_a_moment(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: world.platform.of(Running))
    world.runner.kill(world.runner.started[0])
    await world.platform.until(lambda: world.platform.of(Finished))
    assert (world.platform.of(Finished)[0].exit, world.platform.of(Finished)[0].detail) == (Exit.SANDBOX_FAILED, "killed")
    assert world.containment.buried == [world.platform.of(Finished)[0].attempt]


async def test_inputs_are_fetched_before_the_start_and_a_lost_one_is_reported(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU, inputs=(InputFile(name="a.bin", sha256="0" * 64, size=1),)))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert world.platform.of(Finished)[0].exit is Exit.INPUT_FAILED
    assert world.runner.started == []
    assert world.platform.of(Running) == []


async def test_an_attempt_whose_checkpoint_is_gone_starts_over_and_says_so(world: World) -> None:
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU, restore=Restore(number=2, sha256="0" * 64, size=1)))
    await world.platform.until(lambda: world.platform.of(Finished))
    end = world.platform.of(Finished)[0]
    assert (end.restore_failed, end.exit_code) == (True, 0)
    assert "checkpoint 2 could not be fetched" in next(f.text for f in world.platform.of(Log) if f.stream == "agent")


async def test_bytes_that_fail_are_tried_again(world: World) -> None:
    world.transfer.failing = 2
    await world.online()
    await world.platform.want(desired_attempt("train", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert len(world.transfer.blobs) == 2


async def test_bytes_that_are_refused_are_left_out_of_the_manifest(world: World) -> None:
    world.transfer.refuse_all = True
    await world.online()
    await world.platform.want(desired_attempt("train", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    end = world.platform.of(Finished)[0]
    assert (end.artefacts, end.checkpoints) == ((), ())
    said = "".join(f.text for f in world.platform.of(Log) if f.stream == "agent")
    assert "output file 'model.pt' was not taken by the platform: 413" in said


async def test_the_same_bytes_under_other_names_are_refused_with_them_and_the_end_is_still_reported(world: World) -> None:
    world.transfer.refuse_all = True
    world.platform.answer = lambda frame: (
        [Missing(attempt=frame.attempt, keys=(frame.key,))]
        if isinstance(frame, Artefact) and frame.sha256 not in world.transfer.blobs
        else None
    )
    await world.online()
    await world.platform.want(desired_attempt("triplets", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    assert (world.platform.of(Finished)[0].artefacts, world.platform.of(Artefact)) == ((), [])
    said = "".join(f.text for f in world.platform.of(Log) if f.stream == "agent")
    assert all(f"output file '{name}' was not taken by the platform" in said for name in ("a.pt", "b.pt", "c.pt"))


async def test_bytes_that_were_refused_before_a_crash_are_left_out_of_the_manifest_after_it(world: World) -> None:
    world.transfer.refuse_all = True
    world.platform.answer = lambda frame: [] if isinstance(frame, Finished) else None
    await world.online()
    await world.platform.want(desired_attempt("train", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    await world.stop()
    world.platform.frames.clear()
    world.start()
    await world.platform.until(lambda: world.platform.of(Finished))
    end = world.platform.of(Finished)[0]
    assert (end.artefacts, end.checkpoints) == ((), ())


async def test_an_attempt_whose_bytes_are_answered_as_fenced_off_is_forgotten_without_a_stop_frame(world: World) -> None:
    world.transfer.over = True
    await world.online()
    await world.platform.want(desired_attempt("train", GPU))
    await world.platform.until(lambda: world.platform.of(Running))
    await world.idle()
    tried = world.transfer.puts
    await asyncio.sleep(0.5)
    assert (world.transfer.puts, list(world.home.spool.iterdir())) == (tried, [])
    assert world.platform.of(Finished) == []


async def test_metrics_flow_while_a_job_runs(world: World) -> None:
    await world.online()
    assert world.platform.of(Metrics) == []
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: len(world.platform.of(Metrics)) >= 3)
    sample = world.platform.of(Metrics)[0].sample
    assert abs(sample.node_at - time.time()) < 5
    assert sample.devices[0].utilisation_pct is None


async def test_a_status_carries_a_growing_number_and_the_generation_seen(world: World) -> None:
    await world.online()
    await world.platform.want()
    await world.platform.until(lambda: world.platform.of(Status)[-1].generation == 1)
    numbers = [s.seq for s in world.platform.of(Status)]
    assert numbers == sorted(set(numbers))
