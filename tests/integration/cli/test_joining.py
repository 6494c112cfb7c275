"""`qubix provider join` against a platform that does not fit: refused with both sides, once, with nothing started or left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qubix.fabric.node import installed_versions


@dataclass
class Platform:
    """A platform that hands out join tokens with its versions and refuses everything else. Args: versions, what it says of itself."""

    versions: dict[str, str]
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def platform() -> Iterator[Platform]:
    here = {f"{name}_version": version for name, version in asdict(installed_versions()).items()}
    made = Platform(here)

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/api/providers/join-tokens"
            body = {"token": "qj_x", **made.versions} if known else {"code": "token_refused", "detail": "no such token", "next_step": "ask"}
            content = json.dumps(body).encode()
            self.send_response(201 if known else 409)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def join(platform: Platform, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a declared GPU and the token of a cluster that nobody runs."""
    (folder / "config.json").write_text(json.dumps({"url": platform.url, "api_key": "qk_x"}))
    (folder / "token").write_text("0" * 64)
    line = [sys.executable, "-m", "qubix.cli.main", "provider", "join", "--home", "node", "--price", "5"]
    line += ["--address", "127.0.0.1:9", "--token-file", "token", "--declare-gpu", "RTX_4090:24GB", *flags]
    environment = {**os.environ, "QUBIX_CONFIG": str(folder / "config.json")}
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, cwd=folder, env=environment)


@pytest.mark.parametrize(("what", "other"), [("ray", "2.59.0"), ("python", "3.12.1"), ("qubix", "0.0.9")])
def test_another_version_is_refused_with_both_before_anything_is_registered(
    what: str, other: str, platform: Platform, tmp_path: Path
) -> None:
    platform.versions[f"{what}_version"] = other
    answer = join(platform, tmp_path)
    assert answer.returncode == 1, answer.stderr
    there = other if what != "python" else "3.12"
    assert f"{what.capitalize()} here " in answer.stderr
    assert f"in the cluster {there}" in answer.stderr
    assert platform.asked == ["/api/providers/join-tokens"]
    assert not (tmp_path / "node" / "run.json").exists()
    assert not (tmp_path / "node" / "agent.json").exists()


def test_the_same_versions_come_as_far_as_registering(platform: Platform, tmp_path: Path) -> None:
    answer = join(platform, tmp_path)
    assert answer.returncode == 1
    assert platform.asked == ["/api/providers/join-tokens", "/agent/v1/join"]
    assert "leaving" not in answer.stderr


def test_a_detached_join_that_fails_tells_its_error_once_and_leaves_nothing(platform: Platform, tmp_path: Path) -> None:
    platform.versions["ray_version"] = "2.59.0"
    answer = join(platform, tmp_path, "--detach")
    assert answer.returncode == 1
    assert answer.stderr.count("error:") == 1
    assert answer.stderr.count("in the cluster 2.59.0") == 1
    assert answer.stderr.count("what to do:") == 1
    assert "the node did not start" in answer.stderr
    assert not (tmp_path / "node").exists()


def test_a_detached_join_that_fails_says_the_same_to_programs(platform: Platform, tmp_path: Path) -> None:
    answer = join(platform, tmp_path, "--detach", "--json")
    error = json.loads(answer.stdout)["error"]
    assert (error["code"], error["next_step"]) == ("join_refused", "ask")
    assert error["detail"] == "the node did not start: no such token"
    assert not (tmp_path / "node" / "supervisor.log").exists()
    assert not (tmp_path / "node" / "failure.json").exists()
