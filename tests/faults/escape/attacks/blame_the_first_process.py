"""Work, then make the sandbox's first process fail, so that the end looks like the provider's: by its limits, by a storm of signals."""

import os
import resource
import signal
import time

from attack import tried

for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_STACK", "RLIMIT_SIGPENDING"):
    kind = getattr(resource, name)
    tried(f"{name} of process 1", lambda kind=kind: resource.prlimit(1, kind, (1, 1)))
    tried(f"{name} of process 1, read", lambda kind=kind: resource.prlimit(1, kind))
print("done", flush=True)
ours = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGCONT, signal.SIGPIPE, signal.SIGWINCH
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(6):
    if os.fork() == 0:
        while True:
            for number in ours:
                os.kill(1, number)
for _ in range(100):
    if os.fork() == 0:
        os._exit(0)
time.sleep(0.5)
os._exit(3)
