"""The answer for a web layer that is away, put into the configuration that Ray Serve writes for HAProxy."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

from qubix.fabric import ingress

RAYS = """defaults
    errorfile 502 /tmp/p/500.http
    errorfile 503 /tmp/p/500.http
    errorfile 504 /tmp/p/500.http
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found. Ping http://.../-/routes for available routes."
    http-request return status 200 content-type text/plain string "ok" if healthcheck
"""


def started(folder: Path, configuration: Path) -> list[str]:
    """What the starter runs, and with which arguments: `echo` stands in for HAProxy."""
    answer = folder / "away.http"
    starter = folder / "haproxy"
    starter.write_text(ingress._starter("/bin/echo", answer))
    starter.chmod(0o700)
    line = [str(starter), "-db", "-f", str(configuration), "-sf", "1"]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()


def test_the_starter_changes_two_answers_and_runs_haproxy_with_what_it_was_given(tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(RAYS)
    for _ in range(2):  # Ray reloads with the same file
        assert started(tmp_path, configuration) == ["-db", "-f", str(configuration), "-sf", "1"]
    lines = [line.strip() for line in configuration.read_text().splitlines()]
    assert lines[1:4] == [f"errorfile {status} {tmp_path}/away.http" for status in (502, 503, 504)]
    assert lines[5] == f"http-request return status 503 errorfile {tmp_path}/away.http"
    assert lines[6] == RAYS.splitlines()[6].strip()


def test_the_pages_of_haproxy_itself_keep_to_the_loopback(tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text("frontend prometheus\n    bind :9101\nfrontend f\n    bind 0.0.0.0:8080\nlisten stats\n  bind *:8404\n")
    started(tmp_path, configuration)
    binds = [line.split()[1] for line in configuration.read_text().splitlines() if "bind" in line]
    assert binds == ["127.0.0.1:9101", "0.0.0.0:8080", "127.0.0.1:8404"]


def test_the_answer_is_a_problem_that_says_to_come_again(tmp_path: Path) -> None:
    found = ingress.ingress_environment(tmp_path)
    assert found == {ingress.BINARY_VARIABLE: str(tmp_path / "haproxy")}
    head, _, body = (tmp_path / "away.http").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Retry-After: 2" in head
    assert json.loads(body)["code"] == "web_layer_away"


def test_rays_template_still_has_the_lines_that_are_changed() -> None:
    ray = Path(str(find_spec("ray").origin)).parent  # type: ignore[union-attr]
    template = (ray / "serve" / "_private" / "haproxy_templates.py").read_text()
    assert template.count(ingress.NO_BACKEND) == 1
    assert [f"{ingress.ERROR_FILES}{digit} " in template for digit in "234"] == [True] * 3
    assert "bind *:{{ config.stats_port }}" in template
    assert "bind :{{ config.metrics_port }}" in template
    source = (ray / "serve" / "_private" / "haproxy.py").read_text()
    assert 'args = [haproxy_bin, "-db", "-f", self.config_file_path]' in source
