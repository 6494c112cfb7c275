"""Change what starts the next job: the interpreter, its packages, the loader's configuration."""

import os
import sys

from attack import tried

for path in (sys.executable, os.__file__, "/proc/1/exe", "/proc/self/exe", "/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/passwd"):
    tried(path, lambda path=path: os.open(path, os.O_WRONLY | os.O_CREAT))
for folder in sys.path:
    if os.path.isdir(folder):
        tried(f"plant in {folder}", lambda folder=folder: open(f"{folder}/sitecustomize.py", "w"))
tried("the root of process 1", lambda: os.listdir("/proc/1/root/home"))
tried("up from the root", lambda: os.listdir("/proc/1/cwd/../../root/home"))
print("done")
