"""Supervision: back-off, restarts, ends, and the run file that other commands read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.cli import runfile
from qubix.cli.processes import Running, alive, descendants, end, seen, strays
from qubix.cli.supervise import BACKOFF_MAX_S, Child, backoff_s, look_after, start_and_wait
from qubix.kernel.errors import Conflict, Unavailable

PYTHON = [sys.executable, "-I", "-S", "-c"]


@given(st.integers(min_value=1, max_value=10**6))
def test_the_back_off_never_shrinks_and_is_bounded(failures: int) -> None:
    assert 0 < backoff_s(failures) <= backoff_s(failures + 1) <= BACKOFF_MAX_S


def wait_for_end(child: Child) -> None:
    assert child.process is not None
    child.process.wait(10)


def test_a_crashed_child_is_started_again_after_its_back_off(tmp_path: Path) -> None:
    child = Child("crashing", [*PYTHON, "raise SystemExit(3)"], {}, tmp_path / "log")
    child.start()
    wait_for_end(child)
    now = time.monotonic()
    assert not look_after(child, now)
    assert not look_after(child, now + backoff_s(1) - 0.01)
    assert look_after(child, now + backoff_s(1))
    wait_for_end(child)
    later = time.monotonic()
    assert not look_after(child, later)
    assert not look_after(child, later + backoff_s(1))
    assert look_after(child, later + backoff_s(2))
    child.stop()


def test_a_running_child_is_left_alone_and_stops_when_told(tmp_path: Path) -> None:
    child = Child("steady", [*PYTHON, "import time; time.sleep(60)"], {}, tmp_path / "log")
    child.start()
    assert not look_after(child, time.monotonic() + 1000)
    running = child.running
    assert running is not None
    child.stop()
    assert not alive(running)


def test_a_child_that_ignores_sigterm_and_its_children_end_too(tmp_path: Path) -> None:
    stubborn = (
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n  os.setsid(); time.sleep(60)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    child = Child("stubborn", [*PYTHON, stubborn], {}, tmp_path / "log", ready="ready")
    child.start()
    child.wait_until_ready(10)
    assert child.process is not None
    below = descendants(child.process.pid)
    assert len(below) == 1
    child.stop(grace_s=0.2)
    assert child.running is None
    assert not alive(below[0])


def test_a_child_that_dies_before_it_is_ready_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = Child("broken", [*PYTHON, "import sys; sys.exit('no such database')"], {}, tmp_path / "log", ready="ready")
    child.start()
    with pytest.raises(Unavailable, match="no such database"):
        child.wait_until_ready(10)


def test_what_stands_behind_the_ready_line_is_returned(tmp_path: Path) -> None:
    child = Child(
        "web", [*PYTHON, "print('ready http://127.0.0.1:1', flush=True); import time; time.sleep(60)"], {}, tmp_path / "log", ready="ready"
    )
    child.start()
    assert child.wait_until_ready(10) == "http://127.0.0.1:1"
    child.stop()


def test_a_reused_pid_is_not_the_process_that_was_recorded() -> None:
    process = subprocess.Popen([*PYTHON, "import time; time.sleep(60)"])
    try:
        found = seen(process.pid)
        assert found is not None
        other = Running(found.pid, found.started - 1)
        assert not alive(other)
        assert end([other], grace_s=0.1) == []
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_the_run_file_is_read_as_it_was_written_and_is_private(tmp_path: Path) -> None:
    run = runfile.RunFile(seen(os.getpid()), "ready", "/tmp/qx-1", {"application": "http://a"}, {"ray": 1}, {"web": Running(1, 2)})
    runfile.write(tmp_path, run)
    assert runfile.read(tmp_path) == run
    assert run.live
    assert runfile.path_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_broken_run_file_counts_as_none(tmp_path: Path) -> None:
    runfile.path_of(tmp_path).write_text("{")
    assert runfile.read(tmp_path) is None


def test_a_data_folder_has_one_owner(tmp_path: Path) -> None:
    with runfile.locked(tmp_path), pytest.raises(Conflict), runfile.locked(tmp_path):
        raise AssertionError("two owners")


def test_after_a_crash_the_recorded_processes_are_ended(tmp_path: Path) -> None:
    left = subprocess.Popen([*PYTHON, "import time; time.sleep(60)"])
    process = seen(left.pid)
    assert process is not None
    runfile.write(tmp_path, runfile.RunFile(Running(left.pid, 1), processes={"controller": process}))
    runfile.clear_remains(tmp_path)
    assert not alive(process)
    left.wait(10)
    assert runfile.read(tmp_path) is None


def test_a_supervisor_that_crashes_without_a_word_is_reported_with_its_log_which_stays(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such thing") as refused:
        start_and_wait([*PYTHON, "import sys; sys.exit('no such thing')"], tmp_path / "home", "the node")
    assert str(tmp_path / "home" / "supervisor.log") in refused.value.next_step
    assert "no such thing" in (tmp_path / "home" / "supervisor.log").read_text()


def test_a_child_that_is_held_is_not_started_again(tmp_path: Path) -> None:
    child = Child("crashing", [*PYTHON, "raise SystemExit(3)"], {}, tmp_path / "log")
    child.start()
    wait_for_end(child)
    child.held = True
    assert not look_after(child, time.monotonic() + 1000)
    child.held = False
    look_after(child, time.monotonic())
    assert look_after(child, time.monotonic() + 1000)
    child.stop()


def test_strays_are_what_is_below_a_process_but_not_below_one_that_it_keeps() -> None:
    kept = subprocess.Popen([*PYTHON, "import os, time\nif os.fork() == 0: time.sleep(60)\ntime.sleep(60)"])
    stray = subprocess.Popen([*PYTHON, "import time; time.sleep(60)"])
    try:
        while not (below := descendants(kept.pid)):
            time.sleep(0.01)
        found = strays(os.getpid(), [kept.pid])
        assert seen(stray.pid) in found
        assert seen(kept.pid) not in found
        assert below[0] not in found
    finally:
        end([one for one in map(seen, (kept.pid, stray.pid)) if one] + below, grace_s=0.0)
        kept.wait()
        stray.wait()
