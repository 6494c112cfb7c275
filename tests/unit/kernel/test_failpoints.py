"""Failpoints: armed by the environment, silent otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qubix.kernel import failpoints
from qubix.kernel.failpoints import FOLDER_VARIABLE, VARIABLE, Failpoint

PROGRAM = """
from qubix.kernel.failpoints import reach
for place in ("treasury.read", "treasury.credited", "treasury.read"):
    print(place, flush=True)
    reach(place)
"""


def run(setting: str | None, folder: Path | None = None) -> tuple[int, list[str]]:
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, FOLDER_VARIABLE)}
    if setting is not None:
        environment[VARIABLE] = setting
    if folder is not None:
        environment[FOLDER_VARIABLE] = str(folder)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()


def test_nothing_happens_where_nothing_is_armed() -> None:
    assert run(None) == (0, ["treasury.read", "treasury.credited", "treasury.read"])
    failpoints.reach("treasury.read")


@pytest.mark.parametrize(
    ("setting", "reached"),
    [
        ("treasury.credited", ["treasury.read", "treasury.credited"]),
        ("treasury.read:2", ["treasury.read", "treasury.credited", "treasury.read"]),
    ],
)
def test_the_process_ends_by_kill_at_the_place_and_the_time_that_are_armed(setting: str, reached: list[str]) -> None:
    assert run(setting) == (-signal.SIGKILL, reached)


def test_a_process_that_is_stopped_at_its_place_goes_on_when_it_is_let() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, VARIABLE: "treasury.credited:1:stop"}, stdout=subprocess.PIPE, text=True
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate()
    assert (process.returncode, said.split()) == (0, ["treasury.read", "treasury.credited", "treasury.read"])


def test_a_place_is_counted_by_its_own_name_and_strikes_once() -> None:
    armed = Failpoint("a:2")
    assert [armed.reach(name) for name in ("a", "b", "a", "a", "a")] == [False, False, True, False, False]


def test_a_file_in_the_folder_strikes_the_first_process_that_comes_to_its_place_and_no_second(tmp_path: Path) -> None:
    (tmp_path / "treasury.credited").touch()
    assert run(None, tmp_path) == (-signal.SIGKILL, ["treasury.read", "treasury.credited"])
    assert [file.name for file in tmp_path.iterdir()] == ["treasury.credited.struck"]
    assert run(None, tmp_path)[0] == 0


def test_a_file_with_a_pid_strikes_that_process_alone(tmp_path: Path) -> None:
    (tmp_path / "treasury.credited@1").touch()
    assert run(None, tmp_path)[0] == 0
    program = f"import os, pathlib; (pathlib.Path({str(tmp_path)!r}) / f'mine@{{os.getpid()}}').touch()\n"
    program += "from qubix.kernel.failpoints import reach\nreach('mine')"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, FOLDER_VARIABLE: str(tmp_path)}, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("setting", ["a:0", "a:-1", "a:many", "a:1:sleep"])
def test_a_number_of_times_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|counts from 1|kills, or stops"):
        Failpoint(setting)
