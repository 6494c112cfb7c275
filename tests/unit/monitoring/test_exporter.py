"""What one process says of itself: its loops, its pool, and where it is to be asked."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from qubix import exporter
from qubix.exporter import Loops, clear_targets, exported, make_registry
from qubix.postgres.engine import make_engine
from qubix.postgres.measures import PoolCollector
from qubix.settings import Settings


def test_a_step_that_fails_counts_as_a_failure_and_moves_no_success() -> None:
    registry = CollectorRegistry()
    loops = Loops(registry)
    with pytest.raises(KeyError), loops.step("pay"):
        raise KeyError("x")
    assert registry.get_sample_value("qubix_loop_failures_total", {"loop": "pay"}) == 1
    assert registry.get_sample_value("qubix_loop_success_timestamp_seconds", {"loop": "pay"}) is None
    with loops.step("pay"):
        pass
    assert registry.get_sample_value("qubix_loop_failures_total", {"loop": "pay"}) == 1
    assert registry.get_sample_value("qubix_loop_seconds_count", {"loop": "pay"}) == 2
    assert (registry.get_sample_value("qubix_loop_success_timestamp_seconds", {"loop": "pay"}) or 0) > 0


def test_a_process_says_where_it_is_asked_while_it_runs(tmp_path: Path) -> None:
    with exported(Settings(data_dir=tmp_path), make_registry(), "controller") as address:
        assert address is not None
        (file,) = (tmp_path / "prometheus" / "targets").iterdir()
        assert json.loads(file.read_text()) == [{"targets": [address], "labels": {"job": "qubix", "process": "controller"}}]
        assert address.startswith("127.0.0.1:")
    assert list((tmp_path / "prometheus" / "targets").iterdir()) == []


def test_where_there_is_no_data_folder_none_is_made(tmp_path: Path) -> None:
    with exported(Settings(data_dir=tmp_path / "none"), make_registry(), "signer") as address:
        assert address is not None
    assert list(tmp_path.iterdir()) == []


def test_without_a_host_nothing_listens(tmp_path: Path) -> None:
    with exported(Settings(data_dir=tmp_path, metrics_host=""), make_registry(), "controller") as address:
        assert address is None
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_stops_no_process(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = Settings(data_dir=tmp_path, metrics_port=taken.getsockname()[1])
        with exported(settings, make_registry(), "controller") as address:
            assert address is None


def test_the_target_of_a_process_that_has_ended_goes_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = socket.gethostname()
    ended, mine, reused = (tmp_path / f"web-{host}-{pid}.json" for pid in (2**22 + 1, os.getpid(), os.getppid()))
    other = tmp_path / "web-another-machine-4194305.json"
    for path in (ended, mine, reused, other, tmp_path / "haproxy.json"):
        path.write_text("[]")
    os.utime(reused, (1, 1))
    clear_targets(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["haproxy.json", mine.name, other.name])
    monkeypatch.setattr(exporter.os, "getpid", lambda: 1)
    clear_targets(tmp_path)
    assert mine.exists(), "it still runs"


def test_the_pool_is_told_as_it_is() -> None:
    registry = CollectorRegistry()
    registry.register(PoolCollector(make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=3)))
    assert registry.get_sample_value("qubix_database_pool_limit") == 6
    assert registry.get_sample_value("qubix_database_pool_connections", {"state": "in_use"}) == 0
