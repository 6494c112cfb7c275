"""Attacks from inside: each script tries what a hostile job would try and prints BREACH where it got through.

As root and as an ordinary user. The controls at the end run some of the same scripts outside, as nobody, and see breaches:
a wall that holds is worth something only if the attack works without it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix.sandbox.state import Folder

from .conftest import ATTACKS, REPOSITORY, SDK, Containment, Outcome, attack

pytestmark = pytest.mark.sandbox

SECRET = {"QUBIX_TEST_SECRET": "TOP-SECRET"}


def assert_held(outcome: Outcome) -> None:
    """It tried everything and got nothing."""
    text = outcome.text()
    assert "BREACH" not in text, text
    assert "done" in text, (text, outcome.ended)
    assert outcome.ended["left"] == 0


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """Listeners on the machine: TCP, abstract and file sockets."""
    with socket.create_server(("0.0.0.0", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as file:
        name, path = f"qubix-test-{os.getpid()}", folder / f"socket-{time.monotonic_ns()}"
        abstract.bind("\0" + name)
        abstract.listen()
        file.bind(str(path))
        os.chmod(path, 0o777)
        file.listen()
        host = socket.gethostbyname(socket.gethostname())
        yield {"ports": str(tcp.getsockname()[1]), "abstract": name, "socket": str(path), "host": host}


def test_01_the_machines_files_cannot_be_read(containment: Containment) -> None:
    secret = containment.folder / "qubix-secret.txt"
    secret.write_text("TOP-SECRET")
    secret.chmod(0o644)
    params = {
        "base": str(containment.base),
        "spool": str(containment.spool),
        "secret": str(secret),
        "repository": str(REPOSITORY / "qubix"),
    }
    assert_held(containment.run(attack("a01_read_the_machine"), params=params))


def test_02_no_other_process_shows_its_environment(containment: Containment) -> None:
    assert_held(containment.run(attack("a02_environment_of_others"), environment=SECRET))


def test_03_no_secret_is_inherited(containment: Containment) -> None:
    assert_held(containment.run(attack("a03_inherited"), environment=SECRET))


def test_04_no_port_of_the_machine_answers(containment: Containment) -> None:
    with services(containment.folder) as params:
        assert_held(containment.run(attack("a04_tcp_to_the_machine"), params=params))


def test_05_no_unix_socket_of_the_machine_answers(containment: Containment) -> None:
    with services(containment.folder) as params:
        assert_held(containment.run(attack("a05_unix_sockets"), params=params))


@pytest.mark.parametrize(
    "name",
    [
        "a06_socket_families",
        "a07_fork_bomb",
        "a09_fill_disks",
        "a10_write_outside",
        "a12_trace",
        "a13_kill_everything",
        "a14_namespaces",
        "a17_more_rights",
        "a19_kernel_doors",
        "a20_type_into_a_terminal",
        "a22_devices",
        "a24_rewrite_the_runtime",
        "a25_priorities",
    ],
)
def test_an_attack_finds_no_way_out(containment: Containment, name: str) -> None:
    assert_held(containment.run(attack(name)))


def test_08_a_memory_bomb_ends_itself_alone(containment: Containment) -> None:
    outcome = containment.run(attack("a08_memory_bomb"))
    assert "BREACH" not in outcome.text()
    assert outcome.ended["left"] == 0
    assert outcome.ended["exit"] == "out_of_memory" or "MemoryError" in outcome.text("err")


def test_11_hostile_results_are_left_behind(containment: Containment) -> None:
    outcome = containment.run(attack("a11_hostile_results"), limits={"disk_bytes": 48 << 20})
    assert_held(outcome)
    names = {event["name"] for event in outcome.of("ArtefactReady")}
    assert "good/file.txt" in names
    allowed = {"good/file.txt", "f_sparse", "j_closed/file", *(() if containment.ordinary else ("k_closed",))}
    assert names <= allowed, names
    assert all(os.lstat(event["path"]).st_nlink == 1 and Path(event["path"]).is_file() for event in outcome.of("ArtefactReady"))


def test_15_a_daemon_dies_with_its_job(containment: Containment) -> None:
    began = time.monotonic()
    outcome = containment.run(attack("a15_daemon"))
    assert_held(outcome)
    assert outcome.ended["exit"] == "exited"
    assert time.monotonic() - began < 10


def test_16_a_flood_of_output_is_cut_and_ended(containment: Containment) -> None:
    outcome = containment.run(attack("a16_output_flood"))
    assert outcome.ended["exit"] == "output_flood"
    assert outcome.ended["dropped_bytes"] > 64 << 20
    assert outcome.ended["log_ends"]["out"] <= 1 << 20
    assert max(len(line) for line in outcome.text("out").splitlines()) <= 16 << 10


def test_18_a_job_that_ignores_signals_ends_at_its_limit(containment: Containment) -> None:
    outcome = containment.run(attack("a18_will_not_leave"), limit_ms=1000)
    assert outcome.ended["exit"] == "time_limit"
    assert 1000 <= outcome.ended["ran_ms"] < 2500
    assert outcome.ended["left"] == 0


def test_21_hostile_reports_are_skipped_and_drained(containment: Containment) -> None:
    outcome = containment.run(attack("a21_hostile_reports"))
    assert_held(outcome)
    assert outcome.ended["exit_code"] == 0
    assert all(0 <= event["pct"] <= 100 and len(event["operation"]) <= 200 for event in outcome.of("ProgressReport"))
    assert len(outcome.of("ProgressReport")) < 200
    assert not outcome.of("CheckpointReady")


def test_23_only_the_granted_processors_are_used(containment: Containment) -> None:
    outcome = containment.run(attack("a23_busy"), limits={"cpus": 0.5})
    assert_held(outcome)
    if outcome.of("Started")[0]["limits"] != "rlimits":
        assert float(outcome.text().split("seconds ")[1].split()[0]) < 1.6


def test_28_concurrent_attempts_do_not_see_each_other(containment: Containment) -> None:
    victim = containment.start(attack("a28_victim"))
    victim.until("LogText", containing="ready")
    other = Folder.of(containment.base, victim.attempt)
    assert_held(containment.run(attack("a28_spy"), params={"other": str(other.output)}))
    if os.geteuid() == 0 and not containment.ordinary:
        second = containment.start(attack("a28_victim"))
        second.until("LogText", containing="ready")
        users = {os.stat(f"/proc/{running.until_started()}").st_uid for running in (victim, second)}
        assert len(users) == 2
        assert 0 not in users


def test_29_parameters_do_not_show_in_the_process_list(containment: Containment) -> None:
    running = containment.start("import time; print('ready', flush=True); time.sleep(20)", params={"token": "TOP-SECRET"})
    running.until("LogText", containing="ready")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"TOP-SECRET" in line for line in lines)


@pytest.mark.parametrize(
    "name",
    [
        "a01_read_the_machine",
        "a02_environment_of_others",
        "a03_inherited",
        "a04_tcp_to_the_machine",
        "a05_unix_sockets",
        "a06_socket_families",
    ],
)
def test_control_the_same_attack_gets_through_outside(name: str) -> None:
    """Read-only attacks, outside any sandbox, as nobody."""
    outside = Containment(ordinary=True)
    try:
        program = outside.folder / "programs" / "bare"
        program.mkdir()
        shutil.copy(ATTACKS / "attack.py", program)
        shutil.copytree(SDK, program / "qubix_job")
        (program / "main.py").write_text(attack(name))
        python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
        with services(outside.folder) as params:
            found = {
                "base": str(outside.base),
                "spool": str(outside.spool),
                "secret": str(program / "main.py"),
                "repository": str(REPOSITORY / "qubix"),
            }
            environment = {"QUBIX_PARAMS": __import__("json").dumps({**params, **found}), **SECRET, "PATH": "/usr/bin:/bin"}
            result = subprocess.run(
                outside.command(python, "-B", str(program / "main.py")),
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert "BREACH" in result.stdout, result
    finally:
        outside.close()
