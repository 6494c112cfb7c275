"""Look for another attempt on the same machine: its processes, files, checkpoint, shared memory, sockets, semaphores."""

import ctypes
import os
import socket

from attack import LIBC, given, tried

tried("processes", lambda: [name for name in os.listdir("/proc") if name.isdigit()], breach=lambda names: len(names) > 2)
for folder in given["others"]:
    tried(folder, lambda folder=folder: os.listdir(folder))
for path in (
    "/dev/shm/known",
    "/tmp/known",
    "/out/known",
    "/checkpoints/1",
    "/job/.restore",
    os.environ.get("QUBIX_RESTORE", "/job/.restore"),
):
    tried(path, lambda path=path: open(path).read())
print("inputs", os.listdir("/job"))
for name in os.listdir("/job"):
    if name != "main.py":
        print("BREACH input", name)


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
