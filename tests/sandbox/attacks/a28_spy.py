"""Look for another attempt on the same machine: its processes, files, shared memory, sockets, semaphores."""

import ctypes
import os
import socket

import qubix_job
from attack import LIBC, tried

tried("processes", lambda: [name for name in os.listdir("/proc") if name.isdigit()], breach=lambda names: len(names) > 2)
tried("its folder", lambda: os.listdir(qubix_job.params["other"]))
tried("its shared memory", lambda: open("/dev/shm/known").read())
tried("its temporary files", lambda: open("/tmp/known").read())
tried("its output", lambda: open("/out/known").read())


def connect():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0known")


tried("its socket", connect)
tried("its port", lambda: socket.create_connection(("127.0.0.1", 5555), timeout=1))


def segment():
    found = LIBC.shmget(ctypes.c_int(4242), ctypes.c_size_t(4096), ctypes.c_int(0))
    if found < 0:
        raise OSError(ctypes.get_errno(), "no such segment")
    return found


tried("its segment", segment)
print("done")
