"""How the load programs judge what they saw."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks._processes import Processor, role_of
from benchmarks._report import percentile, report
from benchmarks.jobs import Start, at_once_max, order_of, overtaken_max
from benchmarks.upload import blocks, sha256_of


def starts(*running: float) -> list[Start]:
    """Jobs funded one after the other, running from these moments on for ten seconds."""
    return [Start(n, n, n, at, at + 10) for n, at in enumerate(running)]


def test_first_come_first_served_is_an_order_of_1_and_its_reverse_of_minus_1() -> None:
    assert order_of(starts(1, 2, 3, 4)) == 1
    assert order_of(starts(4, 3, 2, 1)) == -1


def test_a_job_that_waits_for_all_others_was_overtaken_by_all_of_them() -> None:
    assert overtaken_max(starts(9, 2, 3, 4)) == 3
    assert overtaken_max(starts(1, 2, 3, 4)) == 0


def test_at_once_counts_those_that_overlap_and_not_one_that_begins_as_another_ends() -> None:
    assert at_once_max(starts(0, 5, 9)) == 3
    assert at_once_max(starts(0, 10, 20)) == 1


@pytest.mark.parametrize(("share", "found"), [(0.5, 50), (0.95, 95), (1.0, 100), (0.01, 1)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, found: int) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == found


def test_bodies_are_as_long_as_asked_and_differ_by_their_seed() -> None:
    assert sum(map(len, blocks(1, 2_500_000))) == 2_500_000
    assert sha256_of(1, 2_500_000) != sha256_of(2, 2_500_000)


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("ray::ServeReplica:qubix:web", "replica"),
        ("ray::NodeAgent", "agent"),
        ("/v/bin/python -m qubix.controller", "controller"),
        ("/v/bin/python -m qubix.fabric.daemon", "fabric"),
        ("/v/bin/python -m qubix.fabric.ray_start start --block", "ray start"),
        ("/v/bin/python -m serve_app.deployment --host h", "deployment"),
        ("/v/bin/python -u /v/ray/dashboard/agent.py --raylet-name=/r/sockets/raylet --x", "ray node agents"),
        ("ray::DashboardAgent", "ray node agents"),
        ("/v/bin/python -m qubix.agent.fork_server 9", "attempts"),
        ("/v/bin/python -m qubix.cli.main provider join --home /h", "node supervisor"),
        ("/v/bin/python -m qubix.cli.main up --data-dir /d", "supervisor"),
        ("postgres: qubix_web qubix 127.0.0.1(4) idle", "postgres session"),
        ("/p/bin/postgres -D /d -h 127.0.0.1", "postgres"),
        ("/v/ray/core/src/ray/raylet/raylet --python_worker_command=/v/ray/_private/workers/default_worker.py", "ray raylet"),
        ("/v/bin/python /v/ray/_private/workers/default_worker.py --x", "ray worker"),
        ("ray::IDLE", "ray worker"),
        ("ray::ServeController", "ray ServeController"),
        ("/v/bin/bwrap --args 9 --", "sandbox"),
        ("sleep 1", "other"),
    ],
)
def test_a_process_has_its_role_by_its_command_line(line: str, role: str) -> None:
    assert role_of(line) == role


def test_the_processor_time_of_a_stretch_is_told_by_role_and_for_the_machine() -> None:
    with Processor(every_s=0.01) as burned:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
    assert burned.seconds["other"] >= 0.05
    assert burned.machine >= 0.05


def test_a_broken_condition_of_the_mark_is_missed_whatever_the_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    report("b", "c", 5.0, "s", against="the mark", against_value=1.0, reach=1.0, aim=2.0, must=False)
    report("b", "c", 5.0, "s", against="the mark", against_value=1.0, reach=1.0, aim=2.0)
    assert [json.loads(line)["met"] for line in capsys.readouterr().out.splitlines()] == ["missed", "aim"]
