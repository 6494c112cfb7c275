"""A process of its own for each attempt, without the price of starting one: a server that has imported what they need, and forks.

A fresh interpreter with these imports costs 0.2 s of CPU, a Ray worker 0.8 to 1.5 s and 60 MB; a fork costs milliseconds and
its own pages. The server (`python -m qubix.agent.fork_server FD OWNER`) has one thread, so forking is safe, and an attempt runs on
the main thread of its process, as it must: the sandbox dies with the thread that started it.

Nothing outlives its owner: with the thread that started it the kernel kills the server, even a frozen one, with the server
its children, and with each its sandbox. Where only the owner's end of its socket is closed, the server ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args
from uuid import UUID

from pydantic import TypeAdapter

from qubix.agent.home import lock_devices
from qubix.agent.runner import RunRequest
from qubix.kernel.errors import QubixError
from qubix.sandbox import run
from qubix.sandbox.events import Ended, Exit, SandboxEvent

TITLE: Final = b"qubix:attempt"
"""How the process of an attempt calls itself; 15 bytes at most."""
OOM_SCORE: Final = 500
"""Added to a job's oom_score_adj (0 to 1000): where a machine's memory runs out, the kernel ends a job before the agent that watches it."""
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_LENGTH: Final = struct.Struct("!I")
_GO: Final = b"g"
_REQUEST: Final = TypeAdapter(RunRequest)
_EVENTS: Final[dict[bytes, TypeAdapter[Any]]] = {kind.__name__.encode(): TypeAdapter(kind) for kind in get_args(SandboxEvent)}
END_TIMEOUT_S: Final = 3.0
"""For a killed process; one that waits for a disk or a device ends only with that."""
KILLED_KEPT_MAX: Final = 10_000
"""Killed attempts that are remembered: the request of one may come later than its kill."""


def run_attempt(request: RunRequest) -> Generator[SandboxEvent, None, None]:
    """What the process of an attempt does: lock the devices, run the sandbox, hand on its events."""
    try:
        locks = lock_devices(request.locks)
    except BlockingIOError:
        yield Ended(Exit.SANDBOX_FAILED, None, None, "a device is still held by an earlier attempt", 0, {})
        return
    try:
        yield from run.run(request.spec, inherit_fds=tuple(lock.fd for lock in locks))
    except QubixError as error:
        yield Ended(Exit.SANDBOX_FAILED, None, None, error.message, 0, {})
    finally:
        for lock in locks:
            lock.close()


# -- what goes over an attempt's line: JSON, so that the process beside hostile code can make its owner read values, never objects ----


def write_event(event: SandboxEvent) -> bytes:
    """An event's name and its JSON."""
    kind = type(event).__name__.encode()
    return kind + b" " + _EVENTS[kind].dump_json(event)


def read_event(content: bytes) -> SandboxEvent:
    """What write_event wrote. Raises: KeyError, pydantic.ValidationError."""
    kind, _, fields = content.partition(b" ")
    event: SandboxEvent = _EVENTS[kind].validate_json(fields)
    return event


def _frame(content: bytes) -> bytes:
    return _LENGTH.pack(len(content)) + content


async def _next(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


# -- the owner's side ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    """An attempt's process, and the line to it. Args: pidfd, None until it has said which process it is."""

    line: asyncio.StreamWriter
    pidfd: int | None = None

    def kill(self) -> None:
        if self.pidfd is None:
            self.line.transport.abort()  # it waits for a word before it starts anything, or is not forked yet
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait for its end. Raises: TimeoutError."""
        if self.pidfd is None:
            return
        loop, over, descriptor = asyncio.get_running_loop(), asyncio.Event(), os.dup(self.pidfd)  # its own may be closed meanwhile
        try:
            loop.add_reader(descriptor, over.set)
            async with asyncio.timeout(END_TIMEOUT_S):
                await over.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


class ForkServer:
    """A fork server of this process; it starts at the first need, and again where it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._children: dict[UUID, _Child] = {}
        self._killed: deque[UUID] = deque(maxlen=KILLED_KEPT_MAX)

    def start(self) -> None:
        """Make sure that it runs."""
        self._running()

    async def run(self, request: RunRequest) -> AsyncIterator[SandboxEvent]:
        """Run an attempt in a process of its own. Ends without an Ended when that process dies; ending early kills it."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._running(), [b"f"], [theirs.fileno()])
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = self._children[request.attempt] = _Child(writer)
        try:
            if request.attempt in self._killed:
                return
            writer.write(_frame(_REQUEST.dump_json(request)))
            await writer.drain()
            child.pidfd = os.pidfd_open(int(await _next(reader)))
            writer.write(_GO)
            while True:
                yield read_event(await _next(reader))
        except (asyncio.IncompleteReadError, ConnectionError, ProcessLookupError):
            return
        finally:
            child.kill()
            try:
                with contextlib.suppress(TimeoutError):
                    await child.ended()  # known until then, so that whoever kills it waits for the same
            finally:
                del self._children[request.attempt]
                if child.pidfd is not None:
                    os.close(child.pidfd)
                writer.close()

    async def kill(self, attempt: UUID) -> None:
        """End an attempt's process, and so its sandbox; one that has not started never will, however late its fork is.

        Raises: TimeoutError, where it does not end.
        """
        self._killed.append(attempt)
        if (child := self._children.get(attempt)) is not None:
            child.kill()
            await child.ended()

    def close(self) -> None:
        """End the server, and so all that it forked."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.wait(10)
            self._process = None

    def _running(self) -> socket.socket:
        if self._control is None or self._process is None or self._process.poll() is not None:
            self.close()
            self._control, theirs = socket.socketpair()
            with theirs:
                line = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(os.getpid())]
                self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))
        return self._control


# -- the server's side --------------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork a process for each socket that comes, until the other end is closed."""
    server = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        word, descriptors, _, _ = socket.recv_fds(control, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not word:
            return
        try:
            child = os.fork()
        except OSError as error:  # one attempt less; the server's own end would be that of all
            print(f"no process for an attempt: {error}", file=sys.stderr, flush=True)
            child = -1
        if child == 0:
            with contextlib.suppress(BrokenPipeError):
                control.close()
                ctypes.CDLL(None).prctl(_PR_SET_NAME, TITLE)
                if _dies_with(server):
                    _attend(socket.socket(fileno=descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


def _dies_with(parent: int) -> bool:
    """Let the kernel kill this process when its parent's thread ends. Returns: whether the parent still lives."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _attend(line: socket.socket) -> None:
    """Be the process of one attempt."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    score = Path("/proc/self/oom_score_adj")
    score.write_text(str(min(1000, int(score.read_text()) + OOM_SCORE)))

    with line.makefile("rb") as file:
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return  # it was killed before it was asked for
        request = _REQUEST.validate_json(file.read(*_LENGTH.unpack(head)))
        line.sendall(_frame(str(os.getpid()).encode()))
        if file.read(len(_GO)) != _GO:
            return  # it was killed meanwhile
    with contextlib.closing(run_attempt(request)) as events:
        for event in events:
            line.sendall(_frame(write_event(event)))


if __name__ == "__main__" and _dies_with(int(sys.argv[2])):
    serve(socket.socket(fileno=int(sys.argv[1])))
