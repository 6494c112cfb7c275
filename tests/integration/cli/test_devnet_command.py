"""`qubix devnet` says where it is, serves until it is told to end, and names what stands in its way."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "qubix.cli.main", "devnet"]


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, which does not outlive the test whatever happens."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_network_runs_until_it_is_told_to_end(ending: signal.Signals, tmp_path: Path) -> None:
    command = [*COMMAND, "--data-dir", str(tmp_path / "net"), "--port", "0", "--json"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        document = json.loads(process.stdout.readline())
        assert httpx.get(document["url"] + "/live/v1/tick-info", trust_env=False).status_code == 200
        process.send_signal(ending)
        assert process.wait(15) == 0
        assert process.stdout.read() == ""


def test_people_are_told_where_it_is_and_what_to_ask(tmp_path: Path) -> None:
    command = [*COMMAND, "--data-dir", str(tmp_path), "--port", "0"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, then = [process.stdout.readline() for _ in range(3)], process.stderr.readline()
        process.terminate()
        assert process.wait(15) == 0
    assert "at http://127.0.0.1:" in said[0]
    assert str(tmp_path / "admin-token") in said[2]
    assert "/live/v1/tick-info" in then


def test_a_taken_port_and_an_open_token_file_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = subprocess.run(
            [*COMMAND, "--data-dir", str(tmp_path), "--port", port, "--json"], capture_output=True, text=True, check=False
        )
    assert refused.returncode == 1
    assert f":{port}" in json.loads(refused.stdout)["error"]["detail"]
    token = tmp_path / "token"
    token.write_text("a token of more than sixteen letters")
    token.chmod(0o644)
    command = [*COMMAND, "--data-dir", str(tmp_path), "--port", "0", "--admin-token-file", str(token), "--json"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert json.loads(refused.stdout)["error"]["next_step"] == f"chmod 600 {token}"
