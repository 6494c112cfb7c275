"""Push characters into a terminal (TIOCSTI, TIOCLINUX), also with bits set that the kernel ignores."""

import ctypes
import errno
import os
import pty

from attack import LIBC, tried

tried("/dev/tty", lambda: os.open("/dev/tty", os.O_RDWR))
_, terminal = pty.openpty()
for request in (0x5412, 0x541C, 0x1_0000_5412, 0xFFFFFFFF_00005412, 0x1_0000_541C):
    for number in (0, terminal):
        result = LIBC.ioctl(ctypes.c_int(number), ctypes.c_ulong(request), b"x")
        refused = result == -1 and ctypes.get_errno() == errno.EPERM
        print("held" if refused else "BREACH", hex(request), number, result, ctypes.get_errno())
print("done")
