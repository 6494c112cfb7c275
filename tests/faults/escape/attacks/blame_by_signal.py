"""Work, then die by the signal that a machine sends when it goes down, so that the work looks lost by the provider."""

import os
import signal
import time

print("done", flush=True)
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
