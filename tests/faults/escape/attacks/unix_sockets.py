"""Reach the machine's Unix sockets: by name in the abstract space, and by path."""

import socket

from attack import given, tried


def connect(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
    return address


for name in given["abstract"]:
    tried(f"abstract {name}", lambda name=name: connect("\0" + name))
for path in given["sockets"]:
    tried(path, lambda path=path: connect(path))
    tried(f"{path} by process 1", lambda path=path: connect(f"/proc/1/root{path}"))
print("done")
