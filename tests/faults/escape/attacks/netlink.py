"""Change the network by its own language: bring devices up, add an address and a route, ask for other namespaces."""

import socket
import struct

from attack import tried

ROUTE = 0
NEWLINK, NEWADDR, NEWROUTE, GETLINK, NEWNSID = 16, 20, 24, 18, 88
REQUEST, ACKNOWLEDGE, CREATE, DUMP = 1, 4, 0x400, 0x300


def ask(kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE) as route:
        route.settimeout(2)
        route.bind((0, 0))
        route.send(struct.pack("=LHHLL", 16 + len(body), kind, flags | REQUEST, 1, 0) + body)
        answer = route.recv(65536)
    code = struct.unpack_from("=i", answer, 16)[0] if struct.unpack_from("=H", answer, 4)[0] == 2 else 0
    if code:
        raise OSError(-code, "refused")
    return answer


link = struct.pack("=BxHiII", 0, 0, 1, 1, 1)
attribute = struct.pack("=HH", 4 + 6, 3) + b"owned\0\0\0"
kind = struct.pack("=HHHH", 16, 18, 10, 1) + b"dummy\0\0\0"
tried("device up", lambda: ask(NEWLINK, ACKNOWLEDGE, link))
tried("new device", lambda: ask(NEWLINK, ACKNOWLEDGE | CREATE, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute + kind))
tried(
    "address", lambda: ask(NEWADDR, ACKNOWLEDGE | CREATE, struct.pack("=BBBBI", 2, 24, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 10, 0, 0, 1))
)
tried("route", lambda: ask(NEWROUTE, ACKNOWLEDGE | CREATE, struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("=HHi", 8, 4, 1)))
tried("namespace by process", lambda: ask(NEWNSID, ACKNOWLEDGE, struct.pack("=Bxxx", 0) + struct.pack("=HHI", 8, 2, 1)))
seen = ask(GETLINK, DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0))
print("BREACH" if b"eth0\0" in seen or b"veth" in seen or b"docker" in seen else "held", "devices", len(seen))
print("done")
