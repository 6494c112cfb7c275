"""What the attack scripts share: try something, say whether a wall held. Lies beside main.py inside the sandbox."""

import ctypes
import os
import platform
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "pivot_root": 155, "chroot": 161, "fsopen": 430, "open_tree": 428, "move_mount": 429, "open_by_handle_at": 304,
        "name_to_handle_at": 303, "clone": 56, "clone3": 435, "keyctl": 250, "add_key": 248, "bpf": 321, "io_uring_setup": 425,
        "userfaultfd": 323, "perf_event_open": 298, "kexec_load": 246, "init_module": 175, "sethostname": 170, "quotactl": 179,
        "syslog": 103, "personality": 135, "pidfd_getfd": 438, "kcmp": 312, "reboot": 169, "swapon": 167, "settimeofday": 164,
        "acct": 163, "iopl": 172, "mount_setattr": 442,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
        "pivot_root": 41, "chroot": 51, "fsopen": 430, "open_tree": 428, "move_mount": 429, "open_by_handle_at": 265,
        "name_to_handle_at": 264, "clone": 220, "clone3": 435, "keyctl": 219, "add_key": 217, "bpf": 280, "io_uring_setup": 425,
        "userfaultfd": 282, "perf_event_open": 241, "kexec_load": 104, "init_module": 105, "sethostname": 161, "quotactl": 60,
        "syslog": 116, "personality": 92, "pidfd_getfd": 438, "kcmp": 272, "reboot": 142, "swapon": 224, "settimeofday": 170,
        "acct": 89, "mount_setattr": 442,
    },
}[platform.machine()]  # fmt: skip


def tried(name: str, action: Callable[[], object], breach: Callable[[object], bool] = lambda _: True) -> None:
    """Print BREACH if `action` got through and its result counts as one; `held` with the reason otherwise."""
    try:
        result = action()
    except BaseException as error:
        print("held", name, type(error).__name__, error)
        return
    print("BREACH" if breach(result) else "held", name, repr(result)[:300])


def call(name: str, *arguments: object) -> int:
    """A raw system call. Raises: OSError."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name]), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)
