"""Become the agent's user, root, or any other by every call that changes one."""

import ctypes
import os
import subprocess

from attack import LIBC, given, tried

before = (os.getresuid(), os.getresgid(), os.getgroups())
for number in given["users"]:
    tried(f"setreuid {number}", lambda n=number: os.setreuid(n, n))
    tried(f"setresuid {number}", lambda n=number: os.setresuid(n, n, n))
    tried(f"setregid {number}", lambda n=number: os.setregid(n, n))
    tried(f"setgroups {number}", lambda n=number: os.setgroups([n]))
    LIBC.setfsuid(ctypes.c_int(number))
    LIBC.setfsgid(ctypes.c_int(number))
    status = open("/proc/self/status").read()
    print(
        "held" if "Uid:\t65534\t65534\t65534\t65534" in status and "Gid:\t65534\t65534\t65534\t65534" in status else "BREACH",
        "setfsuid",
        number,
    )
    open("/tmp/mine", "w").close()
    tried(f"give away to {number}", lambda n=number: os.chown("/tmp/mine", n, n))
for program in ("newuidmap", "newgidmap", "sudo", "su", "pkexec", "doas"):
    tried(
        program,
        lambda program=program: subprocess.run([program, "-n", "id"], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=5),
    )
print("held" if before == (os.getresuid(), os.getresgid(), os.getgroups()) else "BREACH", os.getresuid(), os.getresgid(), os.getgroups())
print("done")
