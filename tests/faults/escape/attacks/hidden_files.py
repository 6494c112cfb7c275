"""Take disk space where a look at the folders does not see it: in closed and deep folders, in the 600th of them, in files without a name."""

import os
import time

MiB = 1 << 20
sizes = []


def put(path):
    with open(path, "wb", buffering=0) as file:
        for _ in range(8):
            sizes.append(file.write(bytes(MiB)))


kept = []
deep = "/out/deep"
try:
    for number in range(600):
        os.mkdir(f"/out/{number:03}")
    for _ in range(30):
        deep += "/d"
    os.makedirs(deep)
    os.mkdir("/out/closed")
    for number in range(10):
        put(f"/out/{590 + number}/\x01{number}")
        put(f"{deep}/\x01{number}")
        put(f"/out/closed/\x01{number}")
        kept.append(os.open(f"/out/\x01{number}", os.O_RDWR | os.O_CREAT))
        os.unlink(f"/out/\x01{number}")
        for _ in range(8):
            sizes.append(os.write(kept[-1], bytes(MiB)))
        os.chmod("/out/closed", 0o300)
        time.sleep(0.02)
except OSError as error:
    print("stopped", error)
written = sum(sizes)
print("written", written // MiB, "MiB", flush=True)
time.sleep(30 if written > 64 * MiB else 0)  # where only looks find it, a machine that stands still looks late
print("BREACH" if written > 64 * MiB else "held", flush=True)
