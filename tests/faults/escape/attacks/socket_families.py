"""Open kinds of sockets that a network namespace does not contain, or that reach into the kernel."""

import socket

from attack import tried

for family in range(46):
    if family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        continue
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        for protocol in (0, 12, 16) if family == 16 else (0,):
            if family == 16 and protocol == 0:
                continue
            tried(f"family {family} kind {kind} protocol {protocol}", lambda f=family, k=kind, p=protocol: socket.socket(f, k, p))
tried("raw icmp", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried("raw all", lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 255))
print("done")
