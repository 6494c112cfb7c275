"""A process for each attempt, forked: alone in its fate, and gone with its owner."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from qubix.agent.fork_server import TITLE, ForkServer, serve
from qubix.agent.home import Home
from qubix.agent.runner import RunRequest
from qubix.sandbox.events import Ended, Exit, LogText, SandboxEvent, Started
from qubix.sandbox.processes import Process
from qubix.sandbox.spec import Program, SandboxSpec

from .conftest import SDK

pytestmark = pytest.mark.sandbox
HELLO = "print('hello', flush=True)"
SLEEP = "import time\nprint('go', flush=True)\ntime.sleep(60)"
LEAVES = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('go', flush=True)\ntime.sleep(60)"
"""Ends by itself as soon as it is asked to."""


class Bench:
    """A fork server, and attempts for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, ForkServer()
        self.home = Home(folder / "home")

    def request(self, script: str, *devices: str) -> RunRequest:
        attempt = uuid4()
        program, spool = self.folder / f"program-{attempt}", self.folder / f"spool-{attempt}"
        for made in (program, spool):
            made.mkdir()
        program.chmod(0o755)
        (program / "main.py").write_text(script)
        (program / "main.py").chmod(0o644)
        spec = SandboxSpec(attempt, self.home.sandboxes, spool, Program(program, "main.py", SDK), limit_ms=60_000)
        return RunRequest(spec, tuple((uuid, self.home.lock_path(uuid)) for uuid in devices))

    async def begun(self, request: RunRequest) -> tuple[asyncio.Task[None], list[SandboxEvent]]:
        """Run it in the background, and wait for its first line."""
        seen: list[SandboxEvent] = []

        async def read() -> None:
            async for event in self.server.run(request):
                seen.append(event)

        task = asyncio.ensure_future(read())
        async with asyncio.timeout(60):
            while not any(isinstance(event, LogText) for event in seen):
                assert not task.done(), seen
                await asyncio.sleep(0.01)
        return task, seen


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.server.close()


def attempts() -> list[psutil.Process]:
    """The processes of attempts below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == TITLE.decode():
                found.append(process)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end soon."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            return True
        time.sleep(0.02)
    return False


async def test_an_attempts_events_come_in_order_and_end_once(bench: Bench) -> None:
    events = [event async for event in bench.server.run(bench.request(HELLO))]
    assert isinstance(events[0], Started)
    assert "".join(event.text for event in events if isinstance(event, LogText)) == "hello\n"
    assert [event.exit_code for event in events if isinstance(event, Ended)] == [0]
    assert isinstance(events[-1], Ended)


async def test_a_killed_attempt_ends_without_a_word_and_leaves_its_neighbour_alone(bench: Bench) -> None:
    first, second = bench.request(SLEEP), bench.request(LEAVES)
    (dying, of_first), (living, of_second) = await bench.begun(first), await bench.begun(second)
    assert len(attempts()) == 2
    started = next(event for event in of_first if isinstance(event, Started))
    inside = psutil.Process(started.pid)
    (runner,) = [one for one in attempts() if inside in one.children(recursive=True)]
    process = Process.of(runner.pid)
    assert process is not None
    await bench.server.kill(first.attempt)
    assert not process.alive()  # its end is awaited: what it would have made next, it did not make
    await asyncio.wait_for(dying, 60)
    assert not any(isinstance(event, Ended) for event in of_first)
    assert gone([inside])
    assert not living.done()
    os.kill(next(event for event in of_second if isinstance(event, Started)).pid, signal.SIGTERM)
    await asyncio.wait_for(living, 60)
    assert [event.exit for event in of_second if isinstance(event, Ended)] == [Exit.EXITED]


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_where_memory_runs_out_a_job_is_ended_before_its_agent(bench: Bench) -> None:
    _, seen = await bench.begun(bench.request(SLEEP))
    inside = next(event for event in seen if isinstance(event, Started)).pid
    assert oom_score(inside) == min(1000, oom_score(os.getpid()) + 500)


async def test_who_stops_listening_kills_the_attempt(bench: Bench) -> None:
    task, seen = await bench.begun(bench.request(SLEEP))
    inside = psutil.Process(next(event for event in seen if isinstance(event, Started)).pid)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert gone([inside])


async def test_with_its_owner_the_server_and_all_attempts_end(bench: Bench) -> None:
    _, seen = await bench.begun(bench.request(SLEEP))
    inside = psutil.Process(next(event for event in seen if isinstance(event, Started)).pid)
    family = [*attempts(), inside]
    bench.server.close()  # what the kernel does for an owner that is killed: its end of the socket closes
    assert gone(family)


OWNER = """
import os, signal, time
from qubix.agent.fork_server import ForkServer
server = ForkServer()
server.start()
print(server._process.pid, flush=True)
time.sleep(60)
"""


def test_with_a_killed_owner_its_server_dies_though_it_is_frozen() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        deadline = time.monotonic() + 10
        while not serves(Path(f"/proc/{server.pid}/status").read_text()):
            assert time.monotonic() < deadline, "the server never got ready"
            time.sleep(0.02)
        server.suspend()
        owner.kill()
    assert gone([server])


def serves(status: str) -> bool:
    """Whether a process has come so far as to wait for its owner's words."""
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) & 1 << signal.SIGCHLD - 1)


async def test_a_killed_server_takes_its_attempts_along_and_the_next_attempt_starts_another(bench: Bench) -> None:
    task, seen = await bench.begun(bench.request(SLEEP))
    inside = psutil.Process(next(event for event in seen if isinstance(event, Started)).pid)
    (attempt,) = attempts()
    os.kill(attempt.ppid(), signal.SIGKILL)
    await asyncio.wait_for(task, 5)
    assert not any(isinstance(event, Ended) for event in seen)
    assert gone([inside])
    events = [event async for event in bench.server.run(bench.request(HELLO))]
    assert isinstance(events[-1], Ended)


async def test_a_device_is_held_as_long_as_its_attempt_lives(bench: Bench) -> None:
    request = bench.request(SLEEP, "gpu-0")
    task, _ = await bench.begun(request)
    assert not bench.home.device_free("gpu-0")
    refused = [event async for event in bench.server.run(bench.request(HELLO, "gpu-0"))]
    assert [(event.exit, event.detail) for event in refused if isinstance(event, Ended)] == [
        (Exit.SANDBOX_FAILED, "a device is still held by an earlier attempt")
    ]
    await bench.server.kill(request.attempt)
    await asyncio.wait_for(task, 5)
    async with asyncio.timeout(5):
        while not bench.home.device_free("gpu-0"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_attempt_that_is_killed_while_the_server_is_frozen_never_starts(bench: Bench) -> None:
    before = psutil.Process().children()
    bench.server.start()
    (server,) = [child for child in psutil.Process().children() if child not in before]
    server.suspend()
    try:
        request = bench.request(SLEEP, "gpu-0")
        seen: list[SandboxEvent] = []
        task = asyncio.ensure_future(_read(bench.server.run(request), seen))
        await asyncio.sleep(0.2)
        await bench.server.kill(request.attempt)  # what the agent does that waited for it too long, and says that it is dead
        await asyncio.wait_for(task, 5)
    finally:
        server.resume()
    events = [event async for event in bench.server.run(bench.request(HELLO, "gpu-0"))]  # after it in the server's queue
    assert isinstance(events[-1], Ended)
    assert events[-1].exit is Exit.EXITED
    assert seen == []
    assert gone(attempts())


async def test_a_request_that_comes_after_its_kill_starts_nothing(bench: Bench) -> None:
    request = bench.request(HELLO)
    await bench.server.kill(request.attempt)
    assert [event async for event in bench.server.run(request)] == []


def test_a_fork_that_fails_costs_one_attempt_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    before = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)}
    control, theirs = socket.socketpair()
    lines = [socket.socketpair() for _ in range(2)]
    try:
        for _, end in lines:
            socket.send_fds(control, [b"f"], [end.fileno()])
            end.close()
        control.close()
        serve(theirs)  # until its owner is gone, not until a fork fails
        assert [ours.recv(1) for ours, _ in lines] == [b"", b""]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for ours, _ in lines:
            ours.close()
        theirs.close()
        gc.unfreeze()


async def _read(events: AsyncIterator[SandboxEvent], into: list[SandboxEvent]) -> None:
    async for event in events:
        into.append(event)
