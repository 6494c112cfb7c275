"""Announce far more checkpoints than anybody could store, of a megabyte each, for three seconds."""

import os
import time

import qubix_job

end = time.monotonic() + 3
number = 0
while time.monotonic() < end:
    number += 1
    try:
        with open("/checkpoints/state", "wb") as file:
            file.write(os.urandom(1 << 20))
        qubix_job.checkpoint("/checkpoints/state", pct=50)
    except OSError as error:
        print("stopped", number, error)
        time.sleep(0.05)
print("announced", number)
print("done", flush=True)
