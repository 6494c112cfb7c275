"""Twenty processes that ignore what they are told."""

import os
import signal
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
print("ready", flush=True)
time.sleep(120)
