"""Make the kernel write a core, or start the program that takes one."""

import os
import resource
import signal

from attack import tried

tried("limit", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30)))
for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT, signal.SIGSYS):
    child = os.fork()
    if child == 0:
        os.chdir("/out")
        os.kill(os.getpid(), number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("BREACH" if os.WCOREDUMP(status) else "held", number, status)
print("BREACH" if [name for name in os.listdir("/out") if name.startswith("core")] else "held", os.listdir("/out"))
print("done")
