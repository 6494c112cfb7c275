"""Read the machine's secrets, the platform's and the agent's files, and other attempts."""

import os
import sys

from attack import given, tried


def read(path):
    return os.listdir(path) if os.path.isdir(path) else open(path, "rb").read()


def more_than_the_interpreter(found):
    """The interpreter lies where it lies on the machine: the folders above it are there, with nothing else in them."""
    return not isinstance(found, list) or not set(found) <= set(sys.base_prefix.split("/"))


for path in ("/etc/shadow", "/home", "/var", "/run", "/sys/kernel", "/boot", "/srv", "/root", "/opt/qubix/../../proc/1/root/etc/shadow"):
    tried(path, lambda path=path: read(path), breach=more_than_the_interpreter)
for path in given["paths"]:
    tried(path, lambda path=path: read(path))
    tried(f"{path} by process 1", lambda path=path: read(f"/proc/1/root{path}"))
for folder, folders, files in os.walk("/"):
    if folder in ("/proc", "/usr"):
        folders.clear()
    for name in files:
        if name in ("shadow", "id_rsa", ".bash_history", "credentials", "key.pem", "agent.json", "run.json", "ray_token"):
            print("BREACH found", folder, name)
print("done")
