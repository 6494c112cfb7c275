"""The attempt that is spied on: it has all that could be seen."""

import ctypes
import socket
import time

from attack import LIBC

for folder in ("/dev/shm", "/tmp", "/out"):
    with open(f"{folder}/known", "w") as file:
        file.write("private")
LIBC.shmget(ctypes.c_int(4242), ctypes.c_size_t(4096), ctypes.c_int(0o1666))
first, second = socket.socket(socket.AF_UNIX), socket.socket()
first.bind("\0known")
first.listen()
second.bind(("127.0.0.1", 5555))
second.listen()
print("ready", flush=True)
time.sleep(60)
