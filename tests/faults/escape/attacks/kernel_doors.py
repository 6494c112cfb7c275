"""Call what loads code into the kernel, watches it, or configures the machine."""

from attack import NUMBERS, call, tried

for name in (
    "keyctl", "add_key", "bpf", "io_uring_setup", "userfaultfd", "perf_event_open", "kexec_load", "init_module", "sethostname", "quotactl", "syslog",
    "reboot", "swapon", "settimeofday", "acct", "iopl",
):  # fmt: skip
    if name in NUMBERS:
        tried(name, lambda name=name: call(name, 0, 0, 0, 0, 0), breach=lambda _: True)
tried("personality", lambda: call("personality", 0x0040000))
for path in ("/dev/kmsg", "/proc/kcore", "/proc/kallsyms", "/sys/kernel/debug", "/proc/kmsg"):
    tried(path, lambda path=path: open(path, "rb").read(16), breach=lambda got: bool(got) and b"0000000000" not in got)
print("done")
