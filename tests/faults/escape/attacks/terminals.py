"""Take every terminal of the machine."""

import os

opened = []
try:
    for _ in range(5000):
        opened.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError as error:
    print("stopped", error)
print("held", "terminals", len(opened))
print("done", flush=True)
