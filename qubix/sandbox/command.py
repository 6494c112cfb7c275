"""From a specification to bubblewrap's arguments: pure, so that every wall can be tested without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.sandbox.spec import SandboxSpec

INSIDE: Final = "/opt/qubix"
OUTPUT: Final = "/out"
CHECKPOINTS: Final = "/checkpoints"
INPUTS: Final = "/job"
NVIDIA_SHARED: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
INSIDE_GRACE_S: Final = 5
"""The runner kills at the limit; the first process inside ends itself this much later if the runner could not."""
ALARM_MAX_S: Final = 1 << 30
PASSWD: Final = b"job:x:65534:65534:job:/tmp:/bin/sh\n"
HOSTS: Final = b"127.0.0.1 localhost job\n::1 localhost\n"


@dataclass(frozen=True)
class Places:
    """Where things lie on this machine. Every path is the real one; `Reach` says how bubblewrap gets at it."""

    bwrap: Path
    interpreter: Path
    python_prefix: Path
    site_packages: tuple[Path, ...]
    init: Path
    output: Path
    checkpoints: Path


@dataclass(frozen=True)
class Descriptors:
    """Numbers of open files that bubblewrap or the first process inside reads or writes."""

    filters: tuple[int, ...]
    info: int
    passwd: int
    hosts: int
    go: int
    status: int
    control: int


@dataclass(frozen=True)
class Reach:
    """Real paths → the paths under which bubblewrap's user can reach them; empty: it reaches them as they are."""

    over: str = ""
    sources: tuple[Path, ...] = ()
    volume: Path | None = None
    """The attempt's folder, when its files lie on a file system of their own."""

    def __call__(self, path: Path) -> str:
        if self.volume is not None and path.is_relative_to(self.volume):
            return f"{self.over}/volume/{path.relative_to(self.volume)}"
        for number, source in enumerate(self.sources):
            if path == source:
                return f"{self.over}/{number}"
        for number, source in enumerate(self.sources):
            if path.is_relative_to(source):
                return f"{self.over}/{number}/{path.relative_to(source)}"
        return str(path)


def sources(spec: SandboxSpec, places: Places, *, own_volume: bool) -> tuple[Path, ...]:
    """Everything of this machine that the sandbox sees besides the system's own folders."""
    found = [places.bwrap, *_outside_usr([places.python_prefix, *places.site_packages]), spec.program.folder, spec.program.sdk, places.init]
    for folder in places.site_packages:
        if places.bwrap.is_relative_to(folder):
            found.remove(places.bwrap)
            found.append(folder)
            break
    if not own_volume:
        found += [places.output, places.checkpoints]
    found += [entry.path for entry in spec.inputs]
    if spec.restore is not None:
        found.append(spec.restore)
    return tuple(dict.fromkeys(found))


def bwrap_arguments(
    spec: SandboxSpec, places: Places, reach: Reach, descriptors: Descriptors, *, system_links: Mapping[str, str]
) -> list[str]:
    """Arguments for bubblewrap, without the program; they go to it through a file, never where `ps` shows them.

    system_links: top-level folders that are links on this machine (/bin → usr/bin); the other ones are bound.
    """
    arguments = ["--unshare-user", "--uid", "65534", "--gid", "65534", "--disable-userns"]
    arguments += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "job"]
    arguments += ["--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "sbin"):
        arguments += ["--symlink", system_links[name], f"/{name}"] if name in system_links else ["--ro-bind-try", f"/{name}", f"/{name}"]
    for shown in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime"):
        arguments += ["--ro-bind-try", shown, shown]
    arguments += ["--file", str(descriptors.passwd), "/etc/passwd", "--file", str(descriptors.hosts), "/etc/hosts"]
    for path in _outside_usr([places.python_prefix]):
        arguments += ["--ro-bind", reach(path), str(path)]
    for number, path in enumerate(_outside_usr(places.site_packages)):
        arguments += ["--ro-bind", reach(path), f"{INSIDE}/packages/{number}"]
    arguments += ["--ro-bind", reach(spec.program.folder), f"{INSIDE}/job", "--ro-bind", reach(spec.program.sdk), f"{INSIDE}/sdk/qubix_job"]
    arguments += ["--ro-bind", reach(places.init), f"{INSIDE}/init.py", "--proc", "/proc", "--dev", "/dev"]
    for device in (*NVIDIA_SHARED, *spec.gpus) if spec.gpus else ():
        arguments += ["--dev-bind-try", device, device]
    arguments += ["--size", str(spec.limits.shm_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    arguments += ["--size", str(spec.limits.tmp_bytes), "--tmpfs", "/tmp", "--dir", INPUTS]  # noqa: S108
    for entry in spec.inputs:
        arguments += ["--ro-bind", reach(entry.path), f"{INPUTS}/{entry.name}"]
    if spec.restore is not None:
        arguments += ["--ro-bind", reach(spec.restore), f"{INPUTS}/.restore"]
    arguments += ["--bind", reach(places.output), OUTPUT, "--bind", reach(places.checkpoints), CHECKPOINTS]
    arguments += ["--chdir", OUTPUT, "--remount-ro", "/"]
    for key, value in environment(spec, places, descriptors).items():
        arguments += ["--setenv", key, value]
    filters = [word for number in descriptors.filters for word in ("--add-seccomp-fd", str(number))]
    return [*arguments, *filters, "--info-fd", str(descriptors.info)]


def environment(spec: SandboxSpec, places: Places, descriptors: Descriptors) -> dict[str, str]:
    """The job's whole environment."""
    found = {
        "PATH": f"{places.interpreter.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108
        "USER": "job",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join(import_folders(places)),
        "OMP_NUM_THREADS": str(max(1, int(spec.limits.cpus))),
        # Threads that spin while they wait burn the CPU time that the attempt is granted.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": spec.visible_devices,
        "QUBIX_CONTROL_FD": str(descriptors.control),
        "QUBIX_INPUT_DIR": INPUTS,
        "QUBIX_OUTPUT_DIR": OUTPUT,
        "QUBIX_CHECKPOINT_DIR": CHECKPOINTS,
        "QUBIX_PROGRESS_FROM": str(spec.progress_from),
        "QUBIX_PARAMS": json.dumps(dict(spec.params)),
    }
    if spec.restore is not None:
        found["QUBIX_RESTORE"] = f"{INPUTS}/.restore"
    return found


def import_folders(places: Places) -> list[str]:
    """The sdk's folder, then the installed packages, as the job sees them."""
    outside = _outside_usr(places.site_packages)
    return [
        f"{INSIDE}/sdk",
        *(f"{INSIDE}/packages/{outside.index(path)}" if path in outside else str(path) for path in places.site_packages),
    ]


def program(spec: SandboxSpec, places: Places, descriptors: Descriptors, *, rlimit_memory: bool) -> list[str]:
    """The first process inside. rlimit_memory: no cgroup holds the memory limit."""
    words = [str(places.interpreter), "-I", "-S", "-X", "utf8", f"{INSIDE}/init.py", f"{INSIDE}/job/{spec.program.entry}"]
    words += [
        str(number) for number in (descriptors.go, descriptors.status, descriptors.control, spec.limits.pids_max, spec.limits.disk_bytes)
    ]
    words += [str(spec.limits.memory_bytes if rlimit_memory else 0), str(min(spec.limit_ms // 1000 + INSIDE_GRACE_S, ALARM_MAX_S))]
    return [*words, *import_folders(places)]


def _outside_usr(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.is_relative_to("/usr")]
