"""Raise limits and priorities."""

import os
import resource

from attack import tried

for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_MEMLOCK"):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        tried(name, lambda kind=kind, hard=hard: resource.setrlimit(kind, (hard + 1, hard + 1)))
tried("nice", lambda: os.nice(-5))
tried("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)))
tried(
    "oom score",
    lambda: open("/proc/self/oom_score_adj", "w").write("-1000\n") and open("/proc/self/oom_score_adj").read(),
    breach=lambda r: "-1000" in str(r),
)
opened = []
try:
    while len(opened) < 20_000:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
print("BREACH" if len(opened) > 5000 else "held", "descriptors", len(opened))
for number in opened:
    os.close(number)
print("done")
