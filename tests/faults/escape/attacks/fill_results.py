"""Fill the folder of results, in files of 8 MiB, with twenty times what was granted."""

import time

written = 0
try:
    for number in range(120):
        with open(f"/out/{number}", "wb", buffering=0) as file:
            for _ in range(8):
                written += file.write(bytes(1 << 20))
        time.sleep(0.01)
except OSError as error:
    print("stopped", error)
print("written", written >> 20, "MiB", flush=True)
time.sleep(30 if written > 64 << 20 else 0)  # where only looks find it, a machine that stands still looks late
print("BREACH" if written > 64 << 20 else "held", flush=True)
