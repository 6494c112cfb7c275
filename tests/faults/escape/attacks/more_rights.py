"""Become somebody else, or get a capability back."""

import os
import subprocess

from attack import tried

for name, action in {"setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0])}.items():
    tried(name, action)
for line in open("/proc/self/status"):
    key, _, value = line.partition(":")
    if key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        print("held" if int(value, 16) == 0 else "BREACH", key, value.strip())
    if (key, value.strip()) in (("NoNewPrivs", "0"), ("Seccomp", "0")):
        print("BREACH", line)
for path in ("/usr/bin/su", "/usr/bin/sudo", "/usr/bin/passwd", "/usr/bin/mount"):
    if os.path.exists(path):
        arguments = [path, "-c", "id -u"] if path.endswith("su") else [path, "-n", "id", "-u"]
        tried(
            path,
            lambda a=arguments: subprocess.run(a, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout,
            breach=lambda r: b"0" in r,
        )
tried("setcap", lambda: os.setxattr("/out/x" if open("/out/x", "w") else "", "security.capability", b"\x01\x00\x00\x02" + b"\xff" * 16))
tried("setuid bit of root", lambda: os.chown("/out/x", 0, 0))
print("done")
