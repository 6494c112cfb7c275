"""Does a sandbox work on this machine? Asked by running one, never by looking for a program.

The answer is kept in the agent's folder until the machine, the user or the installation changes: a runner that starts
warm does not ask again. A refusal is not kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.kernel.errors import QubixError
from qubix.sandbox import cgroup, runtime
from qubix.sandbox.errors import SandboxUnavailable
from qubix.sandbox.processes import boot_id
from qubix.sandbox.spec import Limits, Program, SandboxSpec

PROGRAM: Final = """\
import os, socket
assert not os.path.exists("/var") and not os.path.exists("/run"), "the machine's folders are visible"
assert len(open("/proc/net/route").readlines()) <= 1, "there is a route to a network"
assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1", str(os.getpid())], "other processes are visible"
status = open("/proc/self/status").read()
assert "CapEff:\\t0000000000000000" in status and "Seccomp:\\t2" in status and "NoNewPrivs:\\t1" in status, "rights are left"
try:
    socket.socket(40, socket.SOCK_STREAM)
except PermissionError:
    pass
else:
    raise AssertionError("the system-call filter does not hold")
"""
LIMITS: Final = Limits(memory_bytes=512 << 20, pids_max=16, disk_bytes=16 << 20, log_bytes_max=64 << 10)
CONTAINER_STEP: Final = (
    "User namespaces are refused here. In a container: run it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined, or on the host itself."
)
APPARMOR_STEP: Final = (
    "This system's AppArmor refuses user namespaces to programs without a profile (Ubuntu 23.10 and newer). Run once: "
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or install the profile bwrap-userns-restrict for {bwrap}."
)
KERNEL_STEP: Final = "Allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000."


@dataclass(frozen=True)
class Probe:
    """What holds on this machine."""

    ok: bool
    reason: str
    next_step: str
    hierarchy: cgroup.Hierarchy
    own_volume: bool = False
    """The kernel bounds what a job writes, by a file system of its own; else the runner looks and kills."""

    @property
    def limits(self) -> cgroup.Kind:
        """Who holds memory, processes and CPU: a cgroup, or rlimits alone, which are per process and weaker."""
        return self.hierarchy.kind

    def facts(self) -> dict[str, str]:
        """The `sandbox` member of the agent protocol's NodeFacts."""
        return {
            "ok": "yes" if self.ok else "no",
            "reason": self.reason,
            "next_step": self.next_step,
            "limits": self.limits,
            "disk": "volume" if self.own_volume else "watched",
        }


def require(base: Path) -> Probe:
    """The answer for `base`, which must be a yes. Raises: SandboxUnavailable."""
    kept = _kept(base)
    if kept is not None:
        return kept
    found = probe(base)
    if not found.ok:
        raise SandboxUnavailable(found.reason, next_step=found.next_step)
    return found


@functools.cache
def _kept(base: Path) -> Probe | None:
    try:
        content = json.loads(_file(base).read_text())
        hierarchy = cgroup.Hierarchy(content["limits"], {name: Path(path) for name, path in content["parents"].items()})
        return Probe(True, "", "", hierarchy, content["own_volume"])
    except (OSError, ValueError, KeyError, TypeError, SandboxUnavailable):
        return None


def probe(base: Path) -> Probe:
    """Run a sandbox that checks its own walls. base: the agent's folder; takes about 0.1 s."""
    hierarchy = cgroup.find()
    own_volume = os.geteuid() == 0
    try:
        hierarchy = _tried(hierarchy)
        reason = _run_one(base, Probe(True, "", "", hierarchy, own_volume))
        if reason and own_volume:
            own_volume = False
            reason = _run_one(base, Probe(True, "", "", hierarchy, own_volume))
    except QubixError as error:
        return Probe(False, error.message, error.next_step or _next_step(error.message), hierarchy)
    except OSError as error:
        return Probe(False, str(error), _next_step(str(error)), hierarchy)
    if reason:
        return Probe(False, reason, _next_step(reason), hierarchy)
    with contextlib.suppress(OSError):
        parents = {name: str(path) for name, path in hierarchy.parents.items()}
        _file(base).write_text(json.dumps({"limits": hierarchy.kind, "parents": parents, "own_volume": own_volume}))
        _kept.cache_clear()
    return Probe(True, "", "", hierarchy, own_volume)


def _tried(hierarchy: cgroup.Hierarchy) -> cgroup.Hierarchy:
    """The hierarchy if a group can be made in it, else none."""
    if hierarchy.kind == "rlimits":
        return hierarchy
    try:
        cgroup.create(hierarchy, f"probe-{uuid.uuid4()}", LIMITS).remove()
    except OSError:
        return cgroup.Hierarchy("rlimits", {})
    return hierarchy


def _run_one(base: Path, wanted: Probe) -> str:
    """Run the program above. Returns: what is wrong, or nothing."""
    from qubix.sandbox.events import Ended, Exit, LogText
    from qubix.sandbox.run import run_on

    attempt = uuid.uuid4()
    folder = base / "probe" / str(attempt)
    try:
        for part in ("program", "sdk", "spool"):
            (folder / part).mkdir(parents=True)
        (folder / "program" / "main.py").write_text(PROGRAM)
        (folder / "program" / "main.py").chmod(0o644)
        for part in ("program", "sdk"):
            (folder / part).chmod(0o755)
        spec = SandboxSpec(
            attempt, base, folder / "spool", Program(folder / "program", "main.py", folder / "sdk"), limit_ms=20_000, limits=LIMITS
        )
        said = ""
        for event in run_on(wanted, spec, ()):
            if isinstance(event, LogText):
                said += event.text
            if isinstance(event, Ended) and (event.exit is not Exit.EXITED or event.exit_code != 0):
                return f"{event.detail} {said}".strip() or f"the sandbox ended with {event.exit}"
        return ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _next_step(reason: str) -> str:
    lowered = reason.lower()
    if "uid map" in lowered or "namespace" in lowered or "operation not permitted" in lowered or "unshare" in lowered:
        if _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            return APPARMOR_STEP.format(bwrap=runtime.bwrap())
        if _reads("/proc/sys/kernel/unprivileged_userns_clone") == "0" or _reads("/proc/sys/user/max_user_namespaces") == "0":
            return KERNEL_STEP
        return CONTAINER_STEP
    if "permission denied" in lowered:
        return "Install Qubix and Python so that everybody can read them (umask 022), then try again."
    return "Run `qubix doctor` and read the reason above."


def _reads(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _file(base: Path) -> Path:
    """Named after everything that the answer depends on."""
    tool = runtime.bwrap()
    sources = [Path(__file__).with_name(name).stat().st_mtime_ns for name in ("init.py", "stage.py", "command.py", "seccomp_allow.txt")]
    key = f"{boot_id()} {os.geteuid()} {tool} {tool.stat().st_mtime_ns} {runtime.interpreter()} {sources} {Path('/proc/self/cgroup').read_text()}"
    return base / f"probe-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
