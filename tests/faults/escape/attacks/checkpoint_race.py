"""Announce checkpoints while their names change into links, pipes, folders and hard links to what should not be read."""

import os
import threading
import time

import qubix_job

over = threading.Event()
TARGETS = ("/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/dev/zero", "/opt/qubix/init.py", "/job/main.py", "/")


def swap(name):
    number = 0
    while not over.is_set():
        number += 1
        for change in (
            lambda: os.symlink(TARGETS[number % len(TARGETS)], f"/checkpoints/{name}.new"),
            lambda: os.mkfifo(f"/checkpoints/{name}.new"),
            lambda: open(f"/checkpoints/{name}.new", "wb").write(b"mine"),
            lambda: os.link("/checkpoints/kept", f"/checkpoints/{name}.new"),
        ):
            try:
                change()
                os.rename(f"/checkpoints/{name}.new", f"/checkpoints/{name}")
            except OSError:
                pass


open("/checkpoints/kept", "wb").write(b"mine")
swapping = [threading.Thread(target=swap, args=(str(number),)) for number in range(1, 4)]
for thread in swapping:
    thread.start()
for number in range(60):
    qubix_job._send({"checkpoint": str(1 + number % 3), "pct": number / 60 * 100})
    time.sleep(0.02)
over.set()
for thread in swapping:
    thread.join()
print("done", flush=True)
