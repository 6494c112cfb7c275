"""Open namespaces, mount, change the root: everything that would give rights."""

import ctypes
import os
import subprocess

from attack import LIBC, call, tried

FLAGS = {
    "ns": 0x20000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x8000000,
    "uts": 0x4000000,
    "cgroup": 0x2000000,
    "time": 0x80,
}
for name, flag in FLAGS.items():
    tried(f"unshare {name}", lambda flag=flag: call("unshare", flag))


def clone(flag):
    pid = call("clone", flag | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


for name, flag in FLAGS.items():
    if name != "time":
        tried(f"clone {name}", lambda flag=flag: clone(flag))
arguments = (ctypes.c_uint64 * 11)(0x10000000, *([0] * 3), 17)
tried("clone3", lambda: call("clone3", arguments, ctypes.sizeof(arguments)))
tried("setns", lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0))
tried("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0))
tried("mount proc", lambda: call("mount", b"proc", b"/tmp", b"proc", 0, 0))
tried("umount", lambda: call("umount2", b"/proc", 2))
tried("pivot_root", lambda: call("pivot_root", b"/tmp", b"/tmp"))
tried("chroot", lambda: os.chroot("/tmp"))
tried("fsopen", lambda: call("fsopen", b"tmpfs", 0))
tried("open_tree", lambda: call("open_tree", -100, b"/", 1))
tried("mount_setattr", lambda: call("mount_setattr", -100, b"/", 0, 0, 0))
tried("name_to_handle_at", lambda: call("name_to_handle_at", -100, b"/", 0, 0, 0))
tried("open_by_handle_at", lambda: call("open_by_handle_at", -100, 0, 0))
tried("unshare(1)", lambda: subprocess.run(["unshare", "-Ur", "id"], check=True, capture_output=True))
print("done", LIBC is not None)
