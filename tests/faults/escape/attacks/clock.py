"""Set the machine's clock, by which leases and money are judged."""

import ctypes
import time

from attack import call, tried

moment = (ctypes.c_long * 2)(int(time.time()) + 3600, 0)
for clock in (0, 1, 4, 5, 7, 11):
    tried(f"clock_settime {clock}", lambda clock=clock: call("clock_settime", clock, moment))
tried("settimeofday", lambda: call("settimeofday", moment, 0))
timex = (ctypes.c_long * 32)(0x0100, 3600)
tried("adjtimex", lambda: call("adjtimex", timex))
tried("clock_adjtime", lambda: call("clock_adjtime", 0, timex))
tried("offset of a time namespace", lambda: open("/proc/self/timens_offsets", "wb", buffering=0).write(b"monotonic 86400 0\n"))
tried("hardware clock", lambda: open("/dev/rtc0", "rb"))
print("done")
