"""Read and write what /proc offers: of process 1, of this one, of the kernel."""

import glob
import os

from attack import tried


def write(path, content=b"1\n"):
    with open(path, "r+b", buffering=0) as file:
        return file.write(content)


for name in (
    "mem",
    "maps",
    "environ",
    "fd",
    "fdinfo",
    "root",
    "cwd",
    "exe",
    "ns/mnt",
    "ns/user",
    "syscall",
    "stack",
    "pagemap",
    "map_files",
    "io",
):
    path = f"/proc/1/{name}"
    tried(path, lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64), breach=lambda _: False)
for name in (
    "mem",
    "oom_score_adj",
    "attr/current",
    "clear_refs",
    "coredump_filter",
    "timens_offsets",
    "uid_map",
    "gid_map",
    "setgroups",
    "comm",
):
    tried(
        f"/proc/1/{name}",
        lambda name=name: write(f"/proc/1/{name}"),
        breach=lambda _, name=name: name not in ("oom_score_adj", "comm", "clear_refs", "coredump_filter"),
    )
for name in ("uid_map", "gid_map", "setgroups", "projid_map", "timens_offsets", "loginuid", "sessionid"):
    tried(f"/proc/self/{name}", lambda name=name: write(f"/proc/self/{name}", b"0 0 1\n"))
for path in (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/hostname", "/proc/sys/kernel/ns_last_pid", "/proc/sys/user/max_user_namespaces", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi", "/proc/mtrr", "/proc/latency_stats", "/proc/timer_list",
):  # fmt: skip
    tried(path, lambda path=path: write(path))
OWN = (
    "net/",
    "user/",
    "fs/mqueue/",
    "kernel/msg",
    "kernel/sem",
    "kernel/shm",
    "kernel/auto_msgmni",
    "kernel/ns_last_pid",
    "kernel/pid_max",
)
for path in glob.glob("/proc/sys/**", recursive=True):
    # What belongs to a namespace of the job is its own; everything else is the machine's.
    if os.access(path, os.W_OK) and not os.path.isdir(path) and not path.removeprefix("/proc/sys/").startswith(OWN):
        tried(path, lambda path=path: open(path, "r+b", buffering=0) and path)
for name in ("kernel/msgmax", "fs/mqueue/msg_max"):
    tried(name, lambda name=name: write(f"/proc/sys/{name}", b"77\n"), breach=lambda _: False)
for path in (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/vmallocinfo",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/keys",
    "/proc/key-users",
    "/proc/sched_debug",
):
    tried(path, lambda path=path: open(path, "rb").read(4096), breach=lambda found: bool(found) and path != "/proc/key-users")
print("done")
