"""Control groups on fake trees, specifications, the system-call list, and identities of processes."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from qubix.sandbox import cgroup, launch, seccomp, stop
from qubix.sandbox.processes import Process, boot_id, descendants, memory_bytes, resident_bytes
from qubix.sandbox.spec import InputMount, InvalidSpec, Limits, Program, SandboxSpec
from qubix.sandbox.state import Folder, State

LIMITS = Limits(memory_bytes=1 << 30, pids_max=10, cpus=1.5)


def test_version_2_is_used_where_its_controllers_are(tmp_path: Path) -> None:
    (tmp_path / "user.slice" / "agent.scope").mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    found = cgroup.find(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n", "0::/user.slice/agent.scope\n")
    assert found == cgroup.Hierarchy("cgroup2", {"": tmp_path / "user.slice"})


def test_a_hybrid_machine_uses_version_1(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").write_text("hugetlb\n")
    for name in ("memory", "pids", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
    mounts = f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0\n" + "".join(
        f"cgroup {tmp_path}/{name} cgroup rw,relatime,{name} 0 0\n" for name in ("memory", "pids", "cpu,cpuacct")
    )
    found = cgroup.find(mounts, "8:pids:/\n4:memory:/\n1:cpu,cpuacct:/\n0::/\n")
    assert found == cgroup.Hierarchy("cgroup1", {"memory": tmp_path / "memory", "pids": tmp_path / "pids", "cpu": tmp_path / "cpu,cpuacct"})


def test_without_controllers_only_rlimits_hold(tmp_path: Path) -> None:
    assert cgroup.find("proc /proc proc rw 0 0\n", "0::/\n").kind == "rlimits"
    assert cgroup.find(f"cgroup {tmp_path} cgroup rw,memory 0 0\n", "4:memory:/\n").kind == "rlimits"


def test_the_limits_of_version_2_are_written(tmp_path: Path) -> None:
    group = cgroup.create(cgroup.Hierarchy("cgroup2", {"": tmp_path}), "x", LIMITS)
    written = {path.name: path.read_text() for path in (tmp_path / "qubix-x").iterdir()}
    assert written == {"memory.max": str(1 << 30), "pids.max": "13", "cpu.max": "150000 100000"}
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert group.pids() == set()


def test_a_process_is_held_only_when_every_hierarchy_has_it(tmp_path: Path) -> None:
    folders = (tmp_path / "memory", tmp_path / "pids")
    for folder, pids in zip(folders, ("7\n12\n", "12\n"), strict=True):
        folder.mkdir()
        (folder / "cgroup.procs").write_text(pids)
    group = cgroup.Group("cgroup1", folders)
    assert (group.holds(12), group.holds(7), group.holds(2)) == (True, False, False)


def test_a_group_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    hierarchy = cgroup.Hierarchy("cgroup1", {"memory": tmp_path, "pids": tmp_path / "missing" / "deeper", "cpu": tmp_path})
    with pytest.raises(OSError, match="missing"):
        cgroup.create(hierarchy, "x", LIMITS)


def test_only_old_and_empty_groups_of_ours_are_swept(tmp_path: Path) -> None:
    for name in ("qubix-old", "qubix-new", "qubix-busy", "another"):
        (tmp_path / name).mkdir()
    (tmp_path / "qubix-busy" / "cgroup").mkdir()
    for name in ("qubix-old", "qubix-busy", "another"):
        os.utime(tmp_path / name, (1, 1))
    assert cgroup.sweep(cgroup.Hierarchy("cgroup1", {"pids": tmp_path})) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"qubix-new", "qubix-busy", "another"}


def test_kills_for_memory_are_read_in_both_versions(tmp_path: Path) -> None:
    group = cgroup.Group("cgroup2", (tmp_path,))
    assert group.oom_kills() == 0
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 2\noom_kill 2\n")
    assert group.oom_kills() == 2
    (tmp_path / "memory.events").unlink()
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert group.oom_kills() == 3


SPEC = SandboxSpec(uuid4(), Path("/b"), Path("/s"), Program(Path("/p"), "main.py", Path("/sdk")), limit_ms=1000)


@pytest.mark.parametrize("name", ["", ".", "..", "/x", "a/../b", "a//b", ".restore", "a/.b", "x\n", "a\0b", "a" * 201, "-" * 0, "$(x)"])
def test_names_of_inputs_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidSpec):
        replace(SPEC, inputs=(InputMount(name, Path("/x")),)).check()


@pytest.mark.parametrize("name", ["main.py", "data/train-images-idx3-ubyte.gz", "a b.txt", "_x", "1"])
def test_ordinary_names_of_inputs_are_allowed(name: str) -> None:
    replace(SPEC, inputs=(InputMount(name, Path("/x")),)).check()


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, limit_ms=0),
        replace(SPEC, params={"a": "x" * 70_000}),
        replace(SPEC, gpus=("/dev/../etc/passwd",)),
        replace(SPEC, gpus=("/etc/passwd",)),
        replace(SPEC, inputs=tuple(InputMount(f"f{n}", Path("/x")) for n in range(201))),
        replace(SPEC, inputs=(InputMount("a", Path("/x")), InputMount("a", Path("/y")))),
    ],
)
def test_a_specification_that_cannot_be_run_safely_is_refused(spec: SandboxSpec) -> None:
    with pytest.raises(InvalidSpec):
        spec.check()


def test_the_list_of_system_calls_holds_none_that_opens_a_way_out() -> None:
    names = set(seccomp.allowed_names())
    assert len(names) == len(seccomp.allowed_names())
    never = {
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp", "userfaultfd", "io_uring_setup", "io_uring_enter",
        "io_uring_register", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "mount", "umount", "umount2", "pivot_root", "chroot", "setns",
        "unshare", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at", "name_to_handle_at",
        "socketcall", "personality", "quotactl", "vmsplice", "clone", "clone3", "socket", "socketpair", "ioctl", "syslog", "kexec_load", "init_module",
        "finit_module", "delete_module", "reboot", "swapon", "acct", "settimeofday", "clock_settime", "adjtimex", "modify_ldt", "iopl", "ioperm",
        "sethostname", "setdomainname", "lookup_dcookie", "fanotify_init", "migrate_pages", "move_pages", "nfsservctl", "vhangup", "uselib",
    }  # fmt: skip
    assert not names & never


def test_a_filter_is_compiled_once_and_kept(tmp_path: Path) -> None:
    seccomp.filters.cache_clear()
    allow, refuse, unseen = seccomp.filters(tmp_path)
    assert len(allow) % 8 == len(refuse) % 8 == len(unseen) % 8 == 0
    assert len(allow) > 1000
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == sorted((allow, refuse, unseen))
    seccomp.filters.cache_clear()
    assert seccomp.filters(tmp_path) == (allow, refuse, unseen)


def test_a_process_is_known_by_its_start_not_by_its_number() -> None:
    own = Process.of(os.getpid())
    assert own is not None
    assert own.alive()
    assert not Process(own.pid, own.started + 1).alive()
    assert not Process(own.pid, own.started + 1).send(__import__("signal").SIGKILL)
    assert Process.of(2**22 + 1) is None


def test_memory_of_a_process_is_read() -> None:
    assert os.getpid() in descendants(os.getpid())


def test_where_no_descriptor_is_left_nobody_says_that_a_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    own = Process.of(os.getpid())
    assert own is not None
    monkeypatch.setattr(os, "pidfd_open", none_left)
    assert not own.wait(0.1)


def test_a_process_is_waited_for_with_a_descriptor_above_1023(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = os.pidfd_open

    def high(pid: int) -> int:
        low = opened(pid)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1500)
        finally:
            os.close(low)

    monkeypatch.setattr(os, "pidfd_open", high)
    try:
        own = Process.of(os.getpid())
        assert own is not None
        assert not own.wait(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_ends_while_it_is_looked_at_has_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(path: Path) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", ended)
    monkeypatch.setattr(os, "scandir", ended)
    assert descendants(os.getpid()) == {os.getpid()}
    assert 1 << 20 < memory_bytes([os.getpid()]) <= resident_bytes([os.getpid()]) * 2


def test_state_reads_back_and_of_another_boot_is_nothing(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path, uuid4())
    folder.path.mkdir(parents=True)
    own = Process.of(os.getpid())
    assert own is not None
    state = State(own, own, own, cgroup.Group("cgroup2", (tmp_path / "g",)))
    state.write(folder)
    assert State.read(folder) == state
    folder.state_file.write_text(folder.state_file.read_text().replace(boot_id(), "another"))
    assert State.read(folder) is None
    folder.state_file.write_text("{torn")
    assert State.read(folder) is None


def test_the_janitor_removes_folders_of_attempts_that_never_started(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path, uuid4())
    closed = folder.output / "closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    closed.chmod(0)
    (folder.output / "link").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd").st_mode
    cleaned = stop.clean(tmp_path)
    assert (cleaned.killed, cleaned.removed, cleaned.stuck) == ((), 1, ())
    assert not folder.path.exists()
    assert os.stat("/etc/passwd").st_mode == before
    assert stop.clean(tmp_path / "none").removed == 0


def test_only_read_only_regular_files_are_inherited(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    for path, flags in ((tmp_path, os.O_RDONLY), (tmp_path / "lock", os.O_RDWR)):
        descriptor = os.open(path, flags)
        with pytest.raises(InvalidSpec):
            launch._check_inherited([descriptor])
        os.close(descriptor)
    descriptor = os.open(tmp_path / "lock", os.O_RDONLY)
    launch._check_inherited([descriptor])
    os.close(descriptor)
