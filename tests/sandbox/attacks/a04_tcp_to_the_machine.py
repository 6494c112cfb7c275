"""Reach services of the machine over the network."""

import socket

import qubix_job
from attack import tried

for port in qubix_job.params["ports"].split():
    for host in ("127.0.0.1", "::1", qubix_job.params["host"]):
        tried(f"{host}:{port}", lambda host=host, port=port: socket.create_connection((host, int(port)), timeout=2))
tried("interfaces", lambda: [name for _, name in socket.if_nameindex() if name not in ("lo", "tunl0", "sit0")], breach=bool)
tried("name resolution", lambda: socket.gethostbyname("example.org"))
tried("metadata service", lambda: socket.create_connection(("169.254.169.254", 80), timeout=2))
print("done")
