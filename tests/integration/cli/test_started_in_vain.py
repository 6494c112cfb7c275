"""Who starts a supervisor and is ended before that is ready leaves nothing of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from qubix.cli import runfile
from qubix.cli.supervise import start_and_wait

SUPERVISOR = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"


def test_a_supervisor_whose_start_is_broken_off_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "pid"

    def broken_off(_: Path) -> None:
        deadline = time.monotonic() + 60
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(runfile, "read", broken_off)
    with pytest.raises(KeyboardInterrupt):
        start_and_wait([sys.executable, "-c", SUPERVISOR, str(told)], tmp_path / "data", "the platform")
    assert not psutil.pid_exists(int(told.read_text()))
