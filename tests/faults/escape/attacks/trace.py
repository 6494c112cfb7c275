"""Trace, read or rewrite other processes."""

import ctypes
import os
import time

from attack import call, tried

child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
memory = ctypes.create_string_buffer(64)
for pid in (1, child):
    tried(f"ptrace {pid}", lambda pid=pid: call("ptrace", 16, pid, 0, 0))
    tried(f"process_vm_readv {pid}", lambda pid=pid: call("process_vm_readv", pid, memory, 1, memory, 1, 0))
    tried(f"process_vm_writev {pid}", lambda pid=pid: call("process_vm_writev", pid, memory, 1, memory, 1, 0))
    tried(f"kcmp {pid}", lambda pid=pid: call("kcmp", pid, os.getpid(), 0, 0, 0))
    tried(f"pidfd_getfd {pid}", lambda pid=pid: call("pidfd_getfd", os.pidfd_open(pid), 0, 0))
tried("other processes", lambda: [name for name in os.listdir("/proc") if name.isdigit()], breach=lambda names: len(names) > 3)
print("done")
