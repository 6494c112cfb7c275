"""What a sandbox tells its caller, and what it leaves behind: nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from qubix.sandbox import launch, probe, stop
from qubix.sandbox.errors import SandboxUnavailable
from qubix.sandbox.events import Ended, Exit
from qubix.sandbox.run import run
from qubix.sandbox.spec import Program, SandboxSpec
from qubix.sandbox.state import Folder, State

from .conftest import REPOSITORY, SDK, Containment

ATTACKS = REPOSITORY / "tests/faults/escape/attacks"
pytestmark = pytest.mark.sandbox


def test_output_arrives_at_once_with_offsets_that_count_its_bytes(containment: Containment) -> None:
    script = "import sys, time\nprint('grüße', flush=True)\ntime.sleep(0.3)\nsys.stdout.buffer.write(b'\\xff\\x00\\n')\nprint('to err', file=sys.stderr)\n"
    outcome = containment.run(script)
    assert outcome.text("out") == "grüße\n\ufffd\ufffd\n"
    assert outcome.text("err") == "to err\n"
    offset = 0
    for event in outcome.of("LogText"):
        if event["stream"] == "out":
            assert event["offset"] == offset
            offset += len(event["text"].encode())
    assert outcome.ended["log_ends"] == {"out": offset, "err": 7, "agent": 0}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import sys; sys.exit(7)", ("exited", 7, None)),
        ("raise ValueError('told')", ("exited", 1, None)),
        ("exit()", ("exited", 0, None)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ("signalled", None, 9)),
        ("import os; os.abort()", ("signalled", None, 6)),
        ("import os, signal, time; os.kill(1, signal.SIGALRM); time.sleep(20)", ("signalled", None, 14)),
        ("import os, signal; os.kill(1, signal.SIGINT); os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGHUP)", ("exited", 0, None)),
    ],
)
def test_the_end_is_told_as_it_was(containment: Containment, script: str, expected: tuple[str, int | None, int | None]) -> None:
    ended = containment.run(script).ended
    assert (ended["exit"], ended["exit_code"], ended["signal"]) == expected


def test_an_error_shows_the_jobs_own_frames_only(containment: Containment) -> None:
    text = containment.run("def inner():\n    raise ValueError('told')\n\n\ninner()\n").text("err")
    assert "ValueError: told" in text
    assert "init.py" not in text


def test_the_job_is_told_its_inputs_and_parameters(containment: Containment) -> None:
    given = containment.folder / f"given-{time.monotonic_ns()}"
    given.write_bytes(b"input bytes")
    given.chmod(0o644)
    script = """
import qubix_job, pathlib, os
print(qubix_job.params["name"], (qubix_job.input_dir / "folder/a b.txt").read_text(), qubix_job.restored().read_text(), os.getcwd())
(qubix_job.output_dir / "sub").mkdir()
(qubix_job.output_dir / "sub" / "result.txt").write_text("result")
"""
    outcome = containment.run(script, params={"name": "välue"}, inputs={"folder/a b.txt": given}, restore=given)
    assert outcome.text("out") == "välue input bytes input bytes /out\n", outcome.text()
    (artefact,) = outcome.of("ArtefactReady")
    assert artefact["name"] == "sub/result.txt"
    assert artefact["sha256"] == hashlib.sha256(b"result").hexdigest()
    assert Path(artefact["path"]).read_bytes() == b"result"


def test_checkpoints_are_copied_out_while_the_job_runs(containment: Containment) -> None:
    script = """
import qubix_job, time
for number in range(3):
    (qubix_job.checkpoint_dir / "state").write_bytes(bytes([number]) * 100_000)
    qubix_job.progress(30 * number, f"step {number}")
    qubix_job.checkpoint(qubix_job.checkpoint_dir / "state", pct=30 * number)
    while (qubix_job.checkpoint_dir / str(number + 1)).exists():  # until it is copied: else the newest would win
        time.sleep(0.01)
print("over", flush=True)
time.sleep(20)
"""
    running = containment.start(script)
    running.until("CheckpointReady")
    first = running.events[-1]
    assert Path(first["path"]).read_bytes() == bytes(100_000)
    assert (first["number"], first["pct"]) == (1, 0)
    Path(first["path"]).unlink()
    second = running.until("CheckpointReady")
    assert second["number"] == 2
    assert 0 <= first["ran_ms"] <= second["ran_ms"]
    running.until("LogText", containing="over")
    assert any(event["event"] == "ProgressReport" and event["operation"] == "step 0" for event in running.events)


def test_checkpoints_that_nobody_fetches_wait_inside_and_the_newest_wins(containment: Containment) -> None:
    script = """
import qubix_job
for number in range(40):
    (qubix_job.checkpoint_dir / "state").write_text(str(number))
    qubix_job.checkpoint(qubix_job.checkpoint_dir / "state", pct=number)
"""
    ready = containment.run(script).of("CheckpointReady")
    assert len(ready) <= 4
    assert [event["number"] for event in ready] == list(range(1, len(ready) + 1))
    assert Path(ready[-1]["path"]).read_text() == "39"


def test_a_restore_that_failed_is_told(containment: Containment) -> None:
    outcome = containment.run("import qubix_job; qubix_job.restore_failed('torn')")
    assert outcome.of("RestoreFailed") == [{"event": "RestoreFailed", "reason": "torn"}]


def test_a_job_that_ignores_signals_ends_at_its_limit(containment: Containment) -> None:
    outcome = containment.run((ATTACKS / "will_not_leave.py").read_text(), limit_ms=1000)
    assert outcome.ended["exit"] == "time_limit"
    assert outcome.ended["ran_ms"] >= 1000
    assert outcome.ended["left"] == 0


def test_hostile_reports_are_skipped_and_drained(containment: Containment) -> None:
    outcome = containment.run((ATTACKS / "hostile_reports.py").read_text())
    assert (outcome.ended["exit"], outcome.ended["exit_code"]) == ("exited", 0)
    assert all(0 <= event["pct"] <= 100 and len(event["operation"]) <= 200 for event in outcome.of("ProgressReport"))
    assert len(outcome.of("ProgressReport")) < 200
    assert not outcome.of("CheckpointReady")


def test_a_stop_lets_the_job_save_first(containment: Containment) -> None:
    script = """
import qubix_job, signal, sys, time
def save(*_):
    (qubix_job.checkpoint_dir / "last").write_text("saved")
    qubix_job.checkpoint(qubix_job.checkpoint_dir / "last", pct=50)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(30)
"""
    running = containment.start(script)
    running.until("LogText", containing="ready")
    stopped = stop.stop(containment.base, running.attempt, grace_s=5)
    outcome = running.wait()
    assert (stopped.found, stopped.by_force, stopped.left) == (True, False, 0)
    assert outcome.ended["exit"] == "stopped"
    assert [event["pct"] for event in outcome.of("CheckpointReady")] == [50]


def test_a_frozen_job_is_stopped_too(containment: Containment) -> None:
    running = containment.start(
        "import os, signal, time\nprint('ready', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(30)\n"
    )
    running.until("LogText", containing="ready")
    stopped = stop.stop(containment.base, running.attempt, grace_s=0.2)
    assert stopped.left == 0
    assert stopped.took_s < 5
    assert running.wait().ended["exit"] == "stopped"


def test_a_full_disk_ends_the_job_and_only_it(containment: Containment) -> None:
    script = """
import time
for number in range(400):
    with open(f"/out/{number}", "wb") as file:
        file.write(bytes(1 << 20))
    time.sleep(0.01)
"""
    outcome = containment.run(script)
    assert outcome.ended["exit"] == "disk_limit", outcome.ended
    assert sum(event["size"] for event in outcome.of("ArtefactReady")) <= 32 << 20


UNLOCK = """
import fcntl, os
for name in os.listdir("/proc/self/fd"):
    try:
        fcntl.flock(int(name), fcntl.LOCK_UN)
    except OSError:
        pass
for folder in ("/proc/1/fd", "/proc/self/fd"):
    for name in os.listdir(folder):
        try:
            fcntl.flock(os.open(f"{folder}/{name}", os.O_RDONLY), fcntl.LOCK_UN)
        except OSError:
            pass
print("tried", flush=True)
import time; time.sleep(30)
"""


def test_a_job_cannot_give_up_the_lock_of_its_device(containment: Containment) -> None:
    path = containment.folder / f"lock-{time.monotonic_ns()}"
    path.touch(mode=0o644)
    with open(path, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        running = containment.start(UNLOCK, inherit_fds=[lock.fileno()])
        running.until("LogText", containing="tried")
    with open(path, "rb") as again, pytest.raises(BlockingIOError):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    stop.stop(containment.base, running.attempt)
    assert running.wait().ended["left"] == 0


def test_a_lock_stays_held_until_the_sandbox_is_gone(containment: Containment) -> None:
    path = containment.folder / f"lock-{time.monotonic_ns()}"
    path.touch(mode=0o644)
    with open(path, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        running = containment.start("import time; print('ready', flush=True); time.sleep(30)", inherit_fds=[lock.fileno()])
        running.until("LogText", containing="ready")
    state = State.read(Folder.of(containment.base, running.attempt))
    assert state is not None
    with open(path, "rb") as again:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(state.runner.pid, signal.SIGKILL)
        running.process.communicate()
        assert state.inside.wait(60)
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert state.left() == 0


def test_nothing_is_left_after_an_attempt(containment: Containment) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    running = containment.start("print('hi')")
    outcome = running.wait()
    assert outcome.ended["exit_code"] == 0
    assert not Folder.of(containment.base, running.attempt).path.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/**/qubix-{running.attempt}"))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_janitor_leaves_no_trace_of_an_earlier_agent(containment: Containment) -> None:
    running = [containment.start("import time; print('ready', flush=True); time.sleep(60)") for _ in range(2)]
    for one in running:
        one.until("LogText", containing="ready")
    assert set(stop.alive(containment.base)) >= {one.attempt for one in running}
    cleaned = stop.clean(containment.base)
    assert set(cleaned.killed) >= {one.attempt for one in running}
    assert not cleaned.stuck
    assert not stop.alive(containment.base)
    for one in running:
        # A runner that does not come to tell it in time is ended, too.
        assert all(end["exit"] in ("stopped", "killed") for end in one.wait().of("Ended"))


def _spec(folder: Path, script: str = "print('hi')") -> SandboxSpec:
    from uuid import uuid4

    for name in ("base", "spool", "program"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "program" / "main.py").write_text(script)
    return SandboxSpec(uuid4(), folder / "base", folder / "spool", Program(folder / "program", "main.py", SDK), limit_ms=20_000)


def test_a_stop_before_the_start_prevents_it(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    assert not stop.stop(spec.base, spec.attempt).found
    (ended,) = run(spec)
    assert isinstance(ended, Ended)
    assert ended.exit is Exit.STOPPED


def test_a_stop_while_it_starts_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(tmp_path)
    probe.require(spec.base)  # which runs a sandbox of its own
    start = launch.start

    def stopped_meanwhile(*arguments: Any, **named: Any) -> launch.Launched:
        assert not stop.stop(spec.base, spec.attempt).found  # nothing is written down yet
        return start(*arguments, **named)

    monkeypatch.setattr(launch, "start", stopped_meanwhile)
    (ended,) = run(spec)
    assert isinstance(ended, Ended)
    assert ended.exit is Exit.STOPPED


def test_what_was_buried_before_it_started_never_starts(tmp_path: Path) -> None:
    """A runner that was given up as dead may only have been late."""
    spec = _spec(tmp_path)
    assert stop.bury(spec.base, spec.attempt)
    (ended,) = run(spec)
    assert isinstance(ended, Ended)
    assert ended.exit is Exit.STOPPED


def test_closing_the_generator_kills_the_job(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "import time; time.sleep(60)")
    events = run(spec)
    next(events)
    state = State.read(Folder.of(spec.base, spec.attempt))
    assert state is not None
    assert state.left()
    events.close()  # type: ignore[attr-defined]
    assert state.left() == 0
    assert not stop.alive(spec.base)


def test_an_input_that_the_job_could_not_read_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from qubix.sandbox.spec import InputMount

    (tmp_path / "missing").mkdir()
    spec = replace(_spec(tmp_path), inputs=(InputMount("a", tmp_path / "missing"),))
    (ended,) = run(spec)
    assert isinstance(ended, Ended)
    assert ended.exit is Exit.SANDBOX_FAILED
    assert not Folder.of(spec.base, spec.attempt).path.exists()


def test_30_without_a_working_tool_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qubix.sandbox import runtime

    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(runtime, "bwrap", lambda: broken)
    spec = _spec(tmp_path, "open('/tmp/qubix-ran-unsandboxed', 'w')")
    found = probe.probe(spec.base)
    assert not found.ok
    assert "uid map" in found.reason
    assert "AppArmor" in found.next_step or "ser namespaces" in found.next_step
    with pytest.raises(SandboxUnavailable, match="uid map"):
        next(run(spec))
    assert not Path("/tmp/qubix-ran-unsandboxed").exists()


def test_the_probe_says_what_holds(tmp_path: Path) -> None:
    found = probe.probe(tmp_path)
    assert found.ok, found
    assert found.facts()["limits"] in ("cgroup1", "cgroup2", "rlimits")
    assert json.loads(next(tmp_path.glob("probe-*.json")).read_text())["limits"] == found.limits
    assert probe.require(tmp_path) == found
    assert not list((tmp_path / "probe").iterdir())


def test_processes_share_one_memory_limit(containment: Containment) -> None:
    """Each stays below the limit of a process; together they are over it."""
    script = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        kept = bytearray(b"x") * (150 << 20)
        time.sleep(3)
        os._exit(0)
    time.sleep(0.05)
print("all started", flush=True)
for _ in range(8):
    os.wait()
raise SystemExit(1)
"""
    outcome = containment.run(script, limit_ms=15_000)
    assert outcome.ended["exit"] == "out_of_memory", outcome.ended
    assert outcome.ended["left"] == 0
