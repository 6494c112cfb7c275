"""Reach the machine's Unix sockets: by name in the abstract space, and by path."""

import socket

import qubix_job
from attack import tried


def connect(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
    return address


tried("abstract", lambda: connect("\0" + qubix_job.params["abstract"]))
tried("file", lambda: connect(qubix_job.params["socket"]))
print("done")
