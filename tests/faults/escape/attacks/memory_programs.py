"""Run programs that lie in no file system, or with libraries of one's own, and see whether they have more rights."""

import os
import shutil
import subprocess

from attack import tried

SHOW = ["-c", "grep -E 'CapEff|CapPrm|NoNewPrivs|Seccomp:|^Uid' /proc/self/status"]
WANTED = ("CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t65534\t65534\t65534\t65534")


def judge(name, line, **options):
    try:
        said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=10, **options).stdout
    except (OSError, subprocess.SubprocessError) as error:
        print("held", name, error)
        return
    print("held" if all(word in said for word in WANTED) else "BREACH", name, said.replace("\n", " "))


def in_memory():
    descriptor = os.memfd_create("program")
    with open("/bin/sh", "rb") as source:
        os.sendfile(descriptor, source.fileno(), 0, os.fstat(source.fileno()).st_size)
    judge("memfd", [f"/proc/self/fd/{descriptor}", *SHOW], pass_fds=[descriptor])
    return False


tried("a program in memory", in_memory, breach=bool)
for folder in ("/tmp", "/out", "/dev/shm"):
    path = f"{folder}/program"
    try:
        shutil.copy("/bin/sh", path)
        os.chmod(path, 0o6755)
    except OSError as error:
        print("held", path, error)
        continue
    judge(path, [path, *SHOW])
for path in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/chsh", "/usr/bin/mount", "/usr/bin/umount"):
    if os.path.exists(path):
        with open("/tmp/ld.so.preload", "w") as file:
            file.write("/tmp/evil.so\n")
        environment = {"LD_PRELOAD": "/tmp/evil.so", "LD_LIBRARY_PATH": "/tmp", "LD_AUDIT": "/tmp/evil.so"}
        ran = subprocess.run([path, "--version"], check=False, capture_output=True, env=environment, stdin=subprocess.DEVNULL, timeout=10)
        print("held", path, ran.returncode)
for path in ("/etc/ld.so.preload", "/etc/ld.so.cache", "/usr/lib/evil.so", "/usr/local/lib/evil.so", "/opt/qubix/packages/0/evil.pth"):
    tried(path, lambda path=path: open(path, "w"))
print("done")
