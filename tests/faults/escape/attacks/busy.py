"""Keep more processors busy than were granted."""

import os
import resource
import time

children = []
end = time.monotonic() + 2
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        while time.monotonic() < end:
            pass
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("seconds", used.ru_utime + used.ru_stime)
print("done")
