"""Run one attempt in a sandbox, from its first process to its last, as a generator of events."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from qubix.kernel.errors import QubixError
from qubix.sandbox import cgroup, collect, launch, probe, processes, volume
from qubix.sandbox.checkpoints import Checkpoints
from qubix.sandbox.errors import SandboxFailed
from qubix.sandbox.events import ArtefactReady, Ended, Exit, ProgressReport, RestoreFailed, SandboxEvent, Started
from qubix.sandbox.processes import Process
from qubix.sandbox.spec import SandboxSpec
from qubix.sandbox.state import Folder, State
from qubix.sandbox.streams import Budget, ControlStream, LogStream, Message

START_TIMEOUT_S: Final = 15.0
DRAIN_S: Final = 2.0
IDLE_S: Final = 0.25
PROGRESS_EVERY_S: Final = 0.1
LOOK_S: Final = 0.25
LOOK_SHARE: Final = 10
"""Looks take at most one part in so many of a processor."""
READ_BYTES: Final = 64 << 10


def run(spec: SandboxSpec, *, inherit_fds: Sequence[int] = ()) -> Iterator[SandboxEvent]:
    """Run the attempt; the events end with exactly one Ended, when no process of it is left.

    inherit_fds: descriptors (read-only regular files, such as the locks of devices) that stay open as long as any process
    of the sandbox lives. Iterate on the thread that lives as long as the attempt; closing the generator kills it.
    Raises, before the first event: SandboxUnavailable (this machine cannot contain it), InvalidSpec.
    """
    spec.check()
    yield from run_on(probe.require(spec.base), spec, inherit_fds)


def run_on(found: probe.Probe, spec: SandboxSpec, inherit_fds: Sequence[int]) -> Iterator[SandboxEvent]:
    """`run` without the question whether it is possible here; for the probe, which asks it by calling this."""
    folder = Folder.of(spec.base, spec.attempt)
    if folder.stop_mark.exists():
        folder.remove()
        yield Ended(Exit.STOPPED, None, None, "stopped before it started", 0, {})
        return
    sandbox = _Sandbox(spec, folder, found)
    try:
        try:
            sandbox.start(inherit_fds)
        except (OSError, ValueError, QubixError) as error:
            why = Exit.STOPPED if folder.stop_mark.exists() else Exit.SANDBOX_FAILED
            yield Ended(why, None, None, str(error)[:1900], 0, {})
            return
        yield Started(sandbox.inside.pid, sandbox.group.kind, sandbox.start_ms)
        yield from sandbox.events()
        left = sandbox.kill()
        yield from sandbox.last_events()
        yield sandbox.ended(left)
    finally:
        sandbox.close()


def look_pause_s(took_s: float, used_s: float) -> float:
    """How long a job is left alone between two looks at its disk and memory.

    What a look used of the processor is made up for; a machine that stood still during it buys the job no more time than that again.

    Args: took_s, of the last look, by the wall; used_s, of the processor.
    """
    return max(LOOK_S, took_s, LOOK_SHARE * used_s)


class _Sandbox:
    """One running sandbox: state of the loop below."""

    inside: Process
    launched: launch.Launched

    def __init__(self, spec: SandboxSpec, folder: Folder, found: probe.Probe) -> None:
        self.spec, self.folder, self.hierarchy = spec, folder, found.hierarchy
        self._template = volume.template(spec.base, spec.limits.disk_bytes) if found.own_volume else None
        self.group = cgroup.NONE
        self.start_ms = 0.0
        self._slot = launch.Slot.take() if os.geteuid() == 0 else None
        self._resources = contextlib.ExitStack()
        self._folders: list[int] = []
        self._budget = Budget(spec.limits.log_bytes_max)
        self._out, self._err = LogStream("out", self._budget), LogStream("err", self._budget)
        self._agent = LogStream("agent", Budget(256 << 10))
        self._control = ControlStream()
        self._progress: ProgressReport | None = None
        self._restore_failed: RestoreFailed | None = None
        self._progress_at = self._looked_at = float("-inf")
        self._look_every_s = LOOK_S
        self._status = b""
        self._verdict: tuple[Exit, str] | None = None
        self._ran_ms: int | None = None
        self._went_at = time.monotonic()  # until it goes, for one that is closed before

    # -- start

    def start(self, inherit_fds: Sequence[int]) -> None:
        """Start it and let the job go. Raises: OSError, QubixError."""
        began = time.monotonic()
        uid = None if self._slot is None else self._slot.uid
        self._check_readable(uid)
        self._make_folders(uid)
        if self.hierarchy.kind != "rlimits":
            self.group = cgroup.create(self.hierarchy, str(self.spec.attempt), self.spec.limits)
        self.launched = launch.start(
            self.spec, self.folder, uid=uid, template=self._template, rlimit_memory=self.group.kind == "rlimits", inherit_fds=inherit_fds
        )
        self._resources.callback(self.launched.close)
        deadline = began + START_TIMEOUT_S
        monitor = self._identify(self.launched.monitor.pid)
        # Joining takes the kernel a good 10 ms, in which bubblewrap gets ready. What it starts before that has to be moved by itself.
        with contextlib.suppress(ProcessLookupError):
            self.group.add(monitor.pid)
        info = json.loads(self._read_until(self.launched.info, b"}", deadline))
        self.inside = self._identify(int(info["child-pid"]))
        if not self.group.holds(self.inside.pid):
            self.group.add(self.inside.pid)
        State(self._identify(os.getpid()), monitor, self.inside, self.group).write(self.folder)
        self._read_until(self.launched.status, b"ready\n", deadline)
        self._open_folders()
        if self.folder.stop_mark.exists():  # by who found no state yet; from here on everybody finds one
            raise SandboxFailed("stopped before it started")
        os.write(self.launched.go, b"g")
        self._went_at = time.monotonic()
        self.start_ms = (self._went_at - began) * 1e3

    def _check_readable(self, uid: int | None) -> None:
        files = [entry.path for entry in self.spec.inputs] + ([self.spec.restore] if self.spec.restore else [])
        for path in files:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode) or (uid is not None and not mode & stat.S_IROTH):
                raise SandboxFailed(
                    f"input {path.name} is not a file that the job's user can read", next_step="Store inputs with mode 0644."
                )

    def _make_folders(self, uid: int | None) -> None:
        self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._template is None:
            for path in (self.folder.output, self.folder.checkpoints):
                path.mkdir(mode=0o700)
                if uid is not None:
                    os.chown(path, uid, uid)

    def _open_folders(self) -> None:
        """Hold on to the job's folders: they outlive the sandbox by these descriptors, wherever they lie."""
        root = Path(f"/proc/{self.inside.pid}/root")
        for path in (root / "out", root / "checkpoints") if self._template else (self.folder.output, self.folder.checkpoints):
            self._folders.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
            self._resources.callback(os.close, self._folders[-1])
        self._output, checkpoint_folder = self._folders
        self.checkpoints = Checkpoints(checkpoint_folder, self.spec.spool, str(self.spec.attempt), self.spec.limits.disk_bytes)

    def _identify(self, pid: int) -> Process:
        found = Process.of(pid)
        if found is None:
            raise SandboxFailed("the sandbox ended at once: " + self._complaint())
        return found

    def _read_until(self, descriptor: int, mark: bytes, deadline: float) -> bytes:
        """Read from a pipe of the sandbox up to a mark."""
        found = b""
        while mark not in found:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SandboxFailed("the sandbox did not start in time: " + self._complaint())
            piece = os.read(descriptor, 4096)
            if not piece:
                raise SandboxFailed("the sandbox did not start: " + self._complaint())
            found += piece
        return found

    def _complaint(self) -> str:
        """What bubblewrap said on its error stream."""
        with contextlib.suppress(OSError):
            select.select([self.launched.err], [], [], 0.5)
            return os.read(self.launched.err, 2000).decode(errors="replace").strip()
        return "it said nothing"

    # -- while it runs

    def events(self) -> Iterator[SandboxEvent]:
        """Everything until the monitor has ended and the pipes are empty."""
        pidfd = os.pidfd_open(self.launched.monitor.pid)
        self._resources.callback(os.close, pidfd)
        poll = select.poll()
        streams = {self.launched.out: self._out, self.launched.err: self._err}
        readers = {*streams, self.launched.control, self.launched.status}
        for descriptor in (*readers, pidfd):
            poll.register(descriptor, select.POLLIN)
        drain_until = float("inf")
        while readers & {*streams, self.launched.control}:
            for descriptor, _ in poll.poll(self._wait_ms()):
                if descriptor == pidfd:
                    poll.unregister(pidfd)
                    self._note_end()
                    drain_until = time.monotonic() + DRAIN_S
                elif not self._read(descriptor, streams.get(descriptor)):
                    poll.unregister(descriptor)
                    readers.discard(descriptor)
            now = time.monotonic()
            yield from self._due(now)
            self._enforce(now)
            if now > drain_until:
                break

    def _read(self, descriptor: int, stream: LogStream | None) -> bool:
        """Read what is there. False: the other end is closed."""
        try:
            piece = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return True
        if stream is not None:
            stream.feed(piece, end=not piece)
        elif descriptor == self.launched.status:
            self._status = (self._status + piece)[-64:]
        else:
            for message in self._control.feed(piece, time.monotonic() - self._went_at):
                self._take(message)
        return bool(piece)

    def _take(self, message: Message) -> None:
        if message.checkpoint is not None:
            self.checkpoints.announce(message.checkpoint, message.pct, self._milliseconds())
        elif message.restore_failed is not None:
            self._restore_failed = RestoreFailed(message.restore_failed)
        else:
            self._progress = ProgressReport(message.pct, message.operation)

    def _due(self, now: float, *, all_of_it: bool = False) -> Iterator[SandboxEvent]:
        """What should be handed out by now."""
        if self._restore_failed is not None:
            yield self._restore_failed
            self._restore_failed = None
        for stream in (self._out, self._err, self._agent):
            due_s = stream.due_s(now)
            if due_s is not None and (due_s <= 0 or all_of_it):
                yield from stream.take(now)
        if self._progress is not None and (all_of_it or now - self._progress_at >= PROGRESS_EVERY_S):
            yield self._progress
            self._progress, self._progress_at = None, now
        for event in self.checkpoints.advance():
            if isinstance(event, str):
                self._agent.feed(f"{event}\n".encode())
            else:
                yield event

    def _wait_ms(self) -> int:
        """How long nothing can be due."""
        if self.checkpoints.busy:
            return 0
        now = time.monotonic()
        waits = [IDLE_S, self._went_at + self.spec.limit_ms / 1e3 - now]
        waits += [due for stream in (self._out, self._err, self._agent) if (due := stream.due_s(now)) is not None]
        if self._progress is not None:
            waits.append(self._progress_at + PROGRESS_EVERY_S - now)
        return max(0, int(min(waits) * 1000) + 1)

    def _enforce(self, now: float) -> None:
        """Kill what went over a limit that the kernel does not watch."""
        if self._verdict is not None or self._ran_ms is not None:
            return
        if now - self._went_at >= self.spec.limit_ms / 1e3:
            self._condemn(Exit.TIME_LIMIT, f"its {self.spec.limit_ms} ms are over")
        elif self._budget.flooded:
            self._condemn(Exit.OUTPUT_FLOOD, f"it wrote {self._budget.dropped} bytes more than are kept")
        elif now - self._looked_at >= self._look_every_s:
            used_s = time.thread_time()
            if self._template is None:
                self._look_at_disk()
            if self.group.kind == "rlimits":
                self._look_at_memory()
            self._looked_at = time.monotonic()
            self._look_every_s = look_pause_s(self._looked_at - now, time.thread_time() - used_s)

    def _look_at_disk(self) -> None:
        found = [collect.usage(folder) for folder in self._folders]
        used = sum(one.size for one in found) + processes.unlinked_bytes(
            processes.descendants(self.inside.pid), os.fstat(self._output).st_dev
        )
        if used > self.spec.limits.disk_bytes:
            self._condemn(Exit.DISK_LIMIT, f"it wrote {used} bytes, {self.spec.limits.disk_bytes} were allowed")
        elif sum(one.entries for one in found) + self._entries_in_memory() > volume.FILES_MAX:
            self._condemn(Exit.DISK_LIMIT, f"it made more than {volume.FILES_MAX} files")
        elif any(one.uncounted for one in found):
            self._condemn(Exit.DISK_LIMIT, f"its folders nest deeper than {collect.USAGE_DEPTH_MAX}")

    def _entries_in_memory(self) -> int:
        """Files in /tmp and /dev/shm. Empty ones have no bytes that their limit counts, but each takes memory of the kernel."""
        entries = 0
        for path in ("tmp", "dev/shm"):
            with contextlib.suppress(OSError):
                system = os.statvfs(f"/proc/{self.inside.pid}/root/{path}")
                entries += system.f_files - system.f_ffree
        return entries

    def _look_at_memory(self) -> None:
        """An rlimit holds each process; nothing but looking holds their sum."""
        pids = processes.descendants(self.inside.pid)
        if processes.resident_bytes(pids) > self.spec.limits.memory_bytes:
            used = processes.memory_bytes(pids)
            if used > self.spec.limits.memory_bytes:
                self._condemn(
                    Exit.OUT_OF_MEMORY, f"its processes held {used} bytes of memory, {self.spec.limits.memory_bytes} were allowed"
                )

    def _condemn(self, why: Exit, detail: str) -> None:
        self._verdict = (why, detail)
        self.inside.send(signal.SIGKILL)

    def _milliseconds(self) -> int:
        return int((time.monotonic() - self._went_at) * 1000)

    def _note_end(self) -> None:
        self.launched.monitor.wait()
        if self._ran_ms is None:
            self._ran_ms = self._milliseconds()

    # -- the end

    def kill(self) -> int:
        """Kill whatever is left. Returns: how many processes would not die."""
        self.inside.send(signal.SIGKILL)
        self.inside.wait(DRAIN_S)
        if self.launched.monitor.poll() is None:
            self.launched.monitor.kill()
            self.launched.monitor.wait()
        self._note_end()
        return self.group.kill() or int(self.inside.alive())

    def last_events(self) -> Iterator[SandboxEvent]:
        """Rest of the logs, checkpoints and artefacts, once nothing can write any more."""
        self._read(self.launched.status, None)
        yield from self._due(time.monotonic(), all_of_it=True)
        self.checkpoints.finish()
        while self.checkpoints.busy:
            yield from self._due(time.monotonic(), all_of_it=True)
        self.rejected: list[tuple[str, str]] = []
        prefix = f"{self.spec.attempt}-artefact"
        for found in collect.collect(self._output, self.spec.spool, size_max=self.spec.limits.disk_bytes, prefix=prefix):
            if isinstance(found, collect.Taken):
                yield ArtefactReady(found.name, found.path, found.sha256, found.size)
            elif len(self.rejected) < collect.REJECTED_MAX:
                self.rejected.append((found.name, found.reason))
                self._agent.feed(f"not taken: {found.name}: {found.reason}\n".encode())
        if self._budget.dropped:
            self._agent.feed(f"{self._budget.dropped} bytes of output were dropped\n".encode())
        yield from self._due(time.monotonic(), all_of_it=True)

    def ended(self, left: int) -> Ended:
        """The verdict."""
        why, code, number, detail = self._judge()
        ends: dict[str, int] = {stream.name: stream.offset for stream in (self._out, self._err, self._agent)}
        return Ended(
            why, code, number, detail, self._ran_ms or 0, ends, dropped_bytes=self._budget.dropped, rejected=tuple(self.rejected), left=left
        )

    def _judge(self) -> tuple[Exit, int | None, int | None, str]:
        kind, number = self._last_word()
        if self._verdict is not None:
            return self._verdict[0], None, None, self._verdict[1]
        if self.folder.stop_mark.exists():
            return Exit.STOPPED, None, None, "stopped on request"
        if self.group.oom_kills() and (kind, number) != ("exit", 0):
            return Exit.OUT_OF_MEMORY, None, 9, f"it used more than {self.spec.limits.memory_bytes} bytes of memory"
        if self._template is not None and (kind, number) != ("exit", 0) and volume.full(self._output):
            return Exit.DISK_LIMIT, None, None, f"it filled its disk of {self.spec.limits.disk_bytes} bytes"
        if kind == "exit":
            return Exit.EXITED, number, None, ""
        if kind == "signal":
            return Exit.SIGNALLED, None, number, f"ended by signal {number}"
        return Exit.KILLED, None, 9, "killed together with its sandbox"

    def _last_word(self) -> tuple[str, int]:
        """How the first process inside said the job ended; nothing if it was killed itself."""
        lines = [line for line in self._status.split(b"\n") if line]
        kind, _, value = (lines[-1] if lines else b"").decode(errors="replace").partition(" ")
        return (kind, int(value)) if kind in ("exit", "signal") and value.isdecimal() else ("", 0)

    def close(self) -> None:
        """Kill and remove everything."""
        if hasattr(self, "launched"):
            if hasattr(self, "inside"):
                self.kill()
            elif self.launched.monitor.poll() is None:
                self.launched.monitor.kill()
                self.launched.monitor.wait()
        self.group.kill()
        self.group.remove()
        self._resources.close()
        if self._slot is not None:
            self._slot.hold.close()
        self.folder.remove()
