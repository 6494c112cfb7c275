"""Read the machine's secrets, the agent's files and other attempts."""

import os

import qubix_job
from attack import tried

for path in ("/etc/shadow", "/home", "/var", "/run", "/sys/kernel", "/boot", "/srv", "/opt/qubix/../../proc/1/root/etc/shadow"):
    tried(path, lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path).read())
for name in ("base", "spool", "secret", "repository"):
    path = qubix_job.params[name]
    tried(name, lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path).read())
for folder, folders, files in os.walk("/"):
    if folder in ("/proc", "/usr"):
        folders.clear()
    for name in files:
        if "qubix-secret" in name or name in ("shadow", "id_rsa", ".bash_history", "credentials"):
            print("BREACH found", folder, name)
print("done")
