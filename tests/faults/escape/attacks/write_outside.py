"""Write anywhere but in the job's own folders."""

import os

from attack import tried

for path in (
    "/x", "/etc/x", "/usr/x", "/usr/bin/x", "/opt/qubix/x", "/opt/qubix/job/x", "/opt/qubix/init.py", "/opt/qubix/sdk/qubix_job/__init__.py", "/job/x",
    "/dev/x", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/sys/x", "/proc/1/oom_score_adj_x",
    "/opt/qubix/packages/0/x.py",
):  # fmt: skip
    tried(path, lambda path=path: open(path, "ab").write(b"x"))
for path in ("/usr/bin/env", "/opt/qubix/init.py", "/job"):
    tried(f"chmod {path}", lambda path=path: os.chmod(path, 0o777))
    tried(f"unlink {path}", lambda path=path: os.unlink(path))
tried("rename", lambda: os.rename("/opt/qubix", "/opt/x"))
print("done")
