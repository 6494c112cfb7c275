"""Kill the runner, the first process and everything else."""

import os
import signal

from attack import tried

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in (signal.SIGKILL, signal.SIGSTOP):
    tried(f"first process {number}", lambda number=number: os.kill(1, number), breach=lambda _: False)
    for pid in range(2, 3000):
        if pid != os.getpid():
            try:
                os.kill(pid, number)
                print("BREACH killed", pid)
            except OSError:
                pass
try:
    os.kill(-1, signal.SIGTERM)
except OSError as error:
    print("held", error)
print("done", flush=True)
