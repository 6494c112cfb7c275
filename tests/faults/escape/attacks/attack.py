"""What the attack scripts share: try something, say whether a wall held. `suite.script` puts it in front of each of them.

The first thing that runs is the guard below: an attack never runs as root outside of a sandbox, whatever else is broken.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable

if os.geteuid() == 0:
    print("BREACH the attack runs as root: nothing contains it")
    sys.exit(99)

given: dict = {}
"""What the suite tells this attack: ports, paths, names."""

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "pivot_root": 155, "chroot": 161, "fsopen": 430, "open_tree": 428, "move_mount": 429, "open_by_handle_at": 304,
        "name_to_handle_at": 303, "clone": 56, "clone3": 435, "keyctl": 250, "add_key": 248, "bpf": 321, "io_uring_setup": 425,
        "userfaultfd": 323, "perf_event_open": 298, "kexec_load": 246, "init_module": 175, "sethostname": 170, "quotactl": 179,
        "syslog": 103, "personality": 135, "pidfd_getfd": 438, "kcmp": 312, "reboot": 169, "swapon": 167, "settimeofday": 164,
        "acct": 163, "iopl": 172, "mount_setattr": 442, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159, "request_key": 249,
        "mq_open": 240, "msgget": 68, "semget": 64, "shmget": 29, "memfd_create": 319, "pidfd_open": 434, "process_madvise": 440,
        "move_pages": 279, "migrate_pages": 256, "lookup_dcookie": 212, "fanotify_init": 300, "vhangup": 153, "sched_setaffinity": 203,
        "memfd_secret": 447, "quotactl_fd": 443, "delete_module": 176, "finit_module": 313, "kexec_file_load": 320, "swapoff": 168,
        "setdomainname": 171, "modify_ldt": 154, "vmsplice": 278, "nfsservctl": 180, "rseq": 334, "getpid": 39,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
        "pivot_root": 41, "chroot": 51, "fsopen": 430, "open_tree": 428, "move_mount": 429, "open_by_handle_at": 265,
        "name_to_handle_at": 264, "clone": 220, "clone3": 435, "keyctl": 219, "add_key": 217, "bpf": 280, "io_uring_setup": 425,
        "userfaultfd": 282, "perf_event_open": 241, "kexec_load": 104, "init_module": 105, "sethostname": 161, "quotactl": 60,
        "syslog": 116, "personality": 92, "pidfd_getfd": 438, "kcmp": 272, "reboot": 142, "swapon": 224, "settimeofday": 170,
        "acct": 89, "mount_setattr": 442, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "request_key": 218,
        "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "memfd_create": 279, "pidfd_open": 434, "process_madvise": 440,
        "move_pages": 239, "migrate_pages": 238, "lookup_dcookie": 18, "fanotify_init": 262, "vhangup": 58, "sched_setaffinity": 122,
        "memfd_secret": 447, "quotactl_fd": 443, "delete_module": 106, "finit_module": 273, "kexec_file_load": 294, "swapoff": 225,
        "setdomainname": 162, "vmsplice": 75, "nfsservctl": 42, "rseq": 293, "getpid": 172,
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
