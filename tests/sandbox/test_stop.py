"""The whole tree of an attempt goes, whoever ends it; and what tells concurrent attempts apart. (What attacks get: tests/faults/escape.)"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from qubix.sandbox import cgroup, probe, stop
from qubix.sandbox.spec import Limits
from qubix.sandbox.state import Folder, State

from .conftest import REPOSITORY, Containment

pytestmark = pytest.mark.sandbox

MANY = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
print("ready", flush=True)
time.sleep(120)
"""
WAITS = "import time; print('ready', flush=True); time.sleep(20)"


def test_a_stop_takes_the_whole_tree(containment: Containment) -> None:
    running = containment.start(MANY)
    running.until("LogText", containing="ready")
    state = State.read(Folder.of(containment.base, running.attempt))
    assert state is not None
    assert state.left() > 0
    stopped = subprocess.run(containment.command(*_stopper(containment, running.attempt)), capture_output=True, text=True, check=True)
    assert "left=0" in stopped.stdout, stopped
    took = re.search(r"took_s=([0-9.]+)", stopped.stdout)
    assert took is not None
    assert float(took[1]) < 5
    assert running.wait().ended["exit"] == "stopped"
    assert state.left() == 0


def _stopper(containment: Containment, attempt: object) -> list[str]:
    python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from pathlib import Path; from uuid import UUID; from qubix.sandbox.stop import stop"
    return [python, "-B", "-c", f"{code}; print(stop(Path({str(containment.base)!r}), UUID({str(attempt)!r}), grace_s=0.3))"]


def test_kill_9_of_the_runner_leaves_no_process(containment: Containment) -> None:
    running = containment.start(MANY)
    running.until("LogText", containing="ready")
    state = State.read(Folder.of(containment.base, running.attempt))
    assert state is not None
    assert state.left() > 0
    os.kill(state.runner.pid, signal.SIGKILL)
    assert state.inside.wait(5)
    deadline = time.monotonic() + 5
    while state.left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state.left() == 0
    assert not stop.alive(containment.base)
    cleaned = stop.clean(containment.base)
    assert cleaned.removed >= 1
    assert not cleaned.stuck
    assert not list((containment.base / "attempts").iterdir())
    assert not any(folder.exists() for folder in state.group.folders)


def test_what_a_killed_runner_left_of_one_attempt_is_removed_and_no_other_is_touched(containment: Containment) -> None:
    killed, other = containment.start(MANY), containment.start(MANY)
    for one in (killed, other):
        one.until("LogText", containing="ready")
    state = State.read(Folder.of(containment.base, killed.attempt))
    assert state is not None
    os.kill(state.runner.pid, signal.SIGKILL)
    assert stop.bury(containment.base, killed.attempt)
    assert not Folder.of(containment.base, killed.attempt).path.exists()
    assert not any(folder.exists() for folder in state.group.folders)
    assert other.attempt in stop.alive(containment.base)
    assert stop.bury(containment.base, uuid4())
    stop.clean(containment.base)


def test_a_runner_that_was_given_up_ends_with_its_sandbox(containment: Containment) -> None:
    running = containment.start(WAITS)
    running.until("LogText", containing="ready")
    state = State.read(Folder.of(containment.base, running.attempt))
    assert state is not None
    os.kill(state.runner.pid, signal.SIGSTOP)  # it waits, as for a reader that is frozen, and holds its devices
    assert stop.bury(containment.base, running.attempt)
    assert state.runner.wait(5)
    assert not Folder.of(containment.base, running.attempt).path.exists()


def test_a_mark_stays_only_where_an_attempt_may_still_start(containment: Containment) -> None:
    late, gone = uuid4(), uuid4()
    assert stop.bury(containment.base, late)
    assert Folder.of(containment.base, late).stop_mark.exists()
    assert stop.bury(containment.base, gone, gone=True)
    assert not Folder.of(containment.base, gone).path.exists()
    stop.clean(containment.base)
    assert not Folder.of(containment.base, late).path.exists()


def test_the_group_of_an_attempt_that_died_before_it_wrote_down_what_it_is_is_removed(containment: Containment) -> None:
    attempt = uuid4()
    group = cgroup.create(probe.probe(containment.base).hierarchy, str(attempt), Limits())
    if not group.folders:
        pytest.skip("no control groups here")
    with subprocess.Popen(["sleep", "60"]) as process:
        group.add(process.pid)
        assert stop.bury(containment.base, attempt, gone=True)
        assert process.wait(5) == -signal.SIGKILL
    assert not any(folder.exists() for folder in group.folders)


def test_a_storm_of_signals_does_not_change_how_the_end_is_told(containment: Containment) -> None:
    """Nor may the job touch the limits of the first process, which has to tell it."""
    script = """
import os, resource, signal, time
try:
    resource.prlimit(1, resource.RLIMIT_DATA, (1, 1))
except PermissionError:
    print("refused", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(4):
    if os.fork() == 0:
        while True:
            os.kill(1, signal.SIGTERM)
time.sleep(0.2)
os._exit(3)
"""
    outcome = containment.run(script)
    assert "refused" in outcome.text()
    assert (outcome.ended["exit"], outcome.ended["exit_code"]) == ("exited", 3)


def test_a_job_that_closes_its_folders_is_still_looked_after_and_collected(containment: Containment) -> None:
    script = """
import os, time
os.mkdir("/out/closed")
open("/out/closed/result", "w").write("x")
for folder in ("/out/closed", "/checkpoints", "/out"):
    os.chmod(folder, 0)
time.sleep(0.5)
"""
    outcome = containment.run(script)
    assert (outcome.ended["exit"], outcome.ended["exit_code"]) == ("exited", 0)
    assert [event["name"] for event in outcome.of("ArtefactReady")] == ["closed/result"]


def test_concurrent_attempts_of_root_have_users_of_their_own(containment: Containment) -> None:
    if containment.ordinary:
        pytest.skip("an ordinary user has one user id for all attempts")
    both = [containment.start(WAITS) for _ in range(2)]
    for running in both:
        running.until("LogText", containing="ready")
    users = {os.stat(f"/proc/{running.until_started()}").st_uid for running in both}
    assert len(users) == 2
    assert 0 not in users


def test_parameters_do_not_show_in_the_process_list(containment: Containment) -> None:
    running = containment.start(WAITS, params={"token": "TOP-SECRET"})
    running.until("LogText", containing="ready")
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    assert lines
    assert not any(b"TOP-SECRET" in line for line in lines)
