"""What the demo's fourth job runs, inside the sandbox: a small tree of processes that never ends by itself. Not imported by anything."""

from __future__ import annotations

import os
import time

for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
print("three children, each in a session of its own, and no end", flush=True)
while True:
    time.sleep(1)
