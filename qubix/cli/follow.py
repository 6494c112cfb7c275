"""Follow a job to its end: the WebSocket says that something is new, REST says what; without the WebSocket, a look each second."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_socket

from qubix.cli.client import Client
from qubix.cli.telling import FINAL as FINAL

LOOK_INTERVAL_S: Final = 1.0
NEWS_SPACING_S: Final = 0.2
"""After news, how long to let more of it gather before asking: a burst of lines costs one request."""


def follow(
    client: Client,
    job_id: str,
    *,
    on_look: Callable[[Mapping[str, Any]], None] = lambda job: None,
    on_line: Callable[[Mapping[str, Any]], None] = lambda line: None,
    on_change: Callable[[Mapping[str, Any]], None] = lambda job: None,
    timeout_s: float | None = None,
) -> Mapping[str, Any]:
    """Tell what happens until the job's state is final.

    Args: on_look, the job as it is at each look, before the lines that came up to then; on_line, each piece of the log once, in order;
        on_change, the job again, after the lines; timeout_s, None for ever.
    Returns: the job at its end. Raises: ApiError; TimeoutError.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    after = 0
    with contextlib.ExitStack() as closing:
        socket = _listen(client, job_id, closing)
        while True:
            job: Mapping[str, Any] = client.get(f"/api/jobs/{job_id}")
            on_look(job)
            after = _lines_after(client, job_id, after, on_line)
            on_change(job)
            if job["state"] in FINAL:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is still {job['state']}")
            socket = _wait_for_news(socket)


def _lines_after(client: Client, job_id: str, after: int, on_line: Callable[[Mapping[str, Any]], None]) -> int:
    while items := client.get(f"/api/jobs/{job_id}/logs", after=after)["items"]:
        for line in items:
            on_line(line)
        after = items[-1]["position"]
    return after


def _listen(client: Client, job_id: str, closing: contextlib.ExitStack) -> ClientConnection | None:
    address = "ws" + client.url.removeprefix("http") + "/api/ws"
    headers = {"Authorization": client.http.headers["Authorization"]} if "Authorization" in client.http.headers else {}
    try:
        socket = closing.enter_context(connect_socket(address, additional_headers=headers, open_timeout=5, close_timeout=1))
        socket.send(json.dumps({"t": "subscribe", "topics": [f"job:{job_id}"]}))
        return socket
    except (OSError, WebSocketException, TimeoutError):
        return None


def _wait_for_news(socket: ClientConnection | None) -> ClientConnection | None:
    if socket is None:
        time.sleep(LOOK_INTERVAL_S)
        return None
    try:
        socket.recv(timeout=LOOK_INTERVAL_S)
        until = time.monotonic() + NEWS_SPACING_S
        while (left := until - time.monotonic()) > 0:
            socket.recv(timeout=left)
    except TimeoutError:
        return socket
    except WebSocketException:
        return None
    return socket
