"""Open the machine's devices, or make one."""

import os
import stat

from attack import tried

for name in (
    "sda",
    "vda",
    "nvme0n1",
    "mem",
    "kmsg",
    "fuse",
    "kvm",
    "vsock",
    "loop0",
    "loop-control",
    "nvidia0",
    "nvidiactl",
    "dri",
    "net/tun",
    "snapshot",
):
    tried(f"/dev/{name}", lambda name=name: os.open(f"/dev/{name}", os.O_RDONLY))
for name, kind, number in (("block", stat.S_IFBLK, os.makedev(254, 0)), ("mem", stat.S_IFCHR, os.makedev(1, 1))):
    tried(f"mknod {name}", lambda n=name, k=kind, d=number: os.mknod(f"/tmp/{n}", k | 0o600, d) or open(f"/tmp/{n}", "rb").read(1))
print("shown", sorted(os.listdir("/dev")))
print("done")
