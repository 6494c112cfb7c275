"""Hold memory where a look at processes does not see it: files in memory, segments that nobody has attached. Tries 1 GiB."""

import ctypes
import os
import time

from attack import LIBC

MiB = 1 << 20
held = 0
kept = []
LIBC.shmat.restype = ctypes.c_void_p
for _ in range(16):
    try:
        descriptor = os.memfd_create("held")
        for _ in range(64):
            os.write(descriptor, b"x" * MiB)
            held += 1
        kept.append(descriptor)
        continue
    except OSError as error:
        print("memfd", error)
    segment = LIBC.shmget(ctypes.c_int(0), ctypes.c_size_t(64 * MiB), ctypes.c_int(0o1600))
    if segment < 0:
        print("segment", os.strerror(ctypes.get_errno()))
        break
    address = LIBC.shmat(ctypes.c_int(segment), None, ctypes.c_int(0))
    ctypes.memset(address, 120, 64 * MiB)
    LIBC.shmdt(ctypes.c_void_p(address))
    held += 64
print("held" if held < 600 else "BREACH", held, "MiB", flush=True)
time.sleep(0.6)
print("done", flush=True)
