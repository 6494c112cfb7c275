"""Look for secrets in what this process was born with: environment and descriptors."""

import os

for key, value in os.environ.items():
    if "TOP-SECRET" in value or key not in {
        "PATH", "HOME", "USER", "LANG", "PWD", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE",
        "CUDA_VISIBLE_DEVICES", "QUBIX_CONTROL_FD", "QUBIX_INPUT_DIR", "QUBIX_OUTPUT_DIR", "QUBIX_CHECKPOINT_DIR", "QUBIX_PROGRESS_FROM",
        "QUBIX_PARAMS", "LC_CTYPE",
    }:  # fmt: skip
        print("BREACH environment", key)
for number in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        continue
    print("held" if target.startswith(("pipe:", "/proc/")) or target == "/dev/null" else "BREACH descriptor", number, target)
print("done")
