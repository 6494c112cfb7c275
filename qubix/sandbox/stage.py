"""What root does before bubblewrap: a private view of a few folders, then a user without rights.

Run as `python -I -S stage.py …`, never imported by the platform. The job's user often cannot reach the interpreter or the
working folder (root's home, a clone below a folder of mode 0700). Opening those folders would open them to everybody, so
they are bind-mounted to a reachable place inside a mount namespace that dies with the sandbox.

Arguments: user id; process id of the parent; a reachable folder to mount over; a file system to copy for the job's files, or
"-"; the folder for the copy; the number of sources; the sources, which appear there as 0, 1, 2 …; then the command.
"""

import _signal as signal  # type: ignore[import-not-found]  # signal itself costs milliseconds of start: it imports enum
import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys

CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV = 0x2, 0x4
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LO_FLAGS_AUTOCLEAR = 0x4C0A, 0x4C82, 4
LOOP_TRIES = 50
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Stop with the kernel's reason."""
    if result != 0:
        sys.exit(f"stage: {what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    check(LIBC.mount(*words, ctypes.c_ulong(flags), None if options is None else options.encode()), f"mount {source} on {target}")


def arrange(over: str, sources: list[str]) -> None:
    """Bind every source below `over`, which is covered by an empty file system first."""
    check(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    opened = [os.open(source, os.O_PATH) for source in sources]
    mount("tmpfs", over, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for number, descriptor in enumerate(opened):
        target = f"{over}/{number}"
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND | MS_REC)
        os.close(descriptor)


def copy(template: str, folder: str) -> int:
    """Copy a sparse file into one without a name. Returns: its descriptor."""
    source, target = os.open(template, os.O_RDONLY), os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while True:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            return target
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(source, at, os.SEEK_SET)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            at += os.sendfile(target, source, None, end - at)


def loop(image: int) -> tuple[str, int]:
    """Make a block device of a file; it goes away with its last user, of whom the returned descriptor is the first."""
    setting = bytearray(232)
    struct.pack_into("<I", setting, 52, LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR)
    for _ in range(LOOP_TRIES):
        device = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, LOOP_CONFIGURE, struct.pack("<II", image, 0) + bytes(setting) + bytes(64))
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EBUSY:
                raise
        else:
            os.close(control)
            return device, descriptor
    raise OSError(errno.EBUSY, "no loop device is free")


def make_volume(template: str, folder: str, over: str, uid: int) -> None:
    """Mount a file system of the job's own below `over`."""
    try:
        image = copy(template, folder)
        device, held = loop(image)
    except OSError as error:
        sys.exit(f"stage: volume: {error}")
    target = f"{over}/volume"
    os.mkdir(target)
    mount(device, target, "ext4", MS_NOSUID | MS_NODEV)
    for name in ("output", "checkpoints"):
        os.mkdir(f"{target}/{name}", 0o700)
        os.chown(f"{target}/{name}", uid, uid)
    os.close(image)
    os.close(held)


def main() -> None:
    """Entry point."""
    uid, parent, over, template, folder, count = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6], int(sys.argv[6])
    sources, command = sys.argv[7 : 7 + count], sys.argv[7 + count :]
    arrange(over, sources)
    if template != "-":
        make_volume(template, folder, over, uid)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with parent")
    if os.getppid() != parent:
        os._exit(125)
    os.chdir("/")
    os.execv(command[0], command)  # noqa: S606  (no shell in between is the purpose)


if __name__ == "__main__":
    main()
