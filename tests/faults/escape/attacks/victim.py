"""The attempt that is spied on, of another consumer on the same machine: it has all that could be seen, for as long as the attacks take."""

import ctypes
import socket
import sys
import time
from pathlib import Path

import qubix_job
from attack import LIBC, given

canary = sys.argv[1]
for folder in ("/dev/shm", "/tmp", "/out"):
    Path(folder, "known").write_text(canary)
LIBC.shmget(ctypes.c_int(4242), ctypes.c_size_t(4096), ctypes.c_int(0o1666))
first, second = socket.socket(socket.AF_UNIX), socket.socket()
first.bind("\0known")
first.listen()
second.bind(("127.0.0.1", 5555))
second.listen()
qubix_job.checkpoint("/out/known", pct=1)
print(canary, flush=True)
time.sleep(given["stays_s"])
