"""Go on working after the cancellation, in many processes that ignore what they are told, and save what was won meanwhile."""

import os
import signal
import time
from pathlib import Path

import qubix_job

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
print("ready", flush=True)
began = time.monotonic()
while True:
    time.sleep(0.1)
    Path("/out/won").write_text(f"{time.monotonic() - began:.1f}")
    print(f"won {time.monotonic() - began:.1f}", flush=True)
    qubix_job.checkpoint("/out/won", pct=min(99, time.monotonic() - began))
